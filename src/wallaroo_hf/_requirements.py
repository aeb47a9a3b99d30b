"""Whether the transformers that is installed is one that this package was tested with. Imports nothing that takes time."""

import warnings
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement


def warn_of_untested_transformers() -> None:
    """Says in one sentence if transformers is outside the range that this package's metadata names.

    Much here inherits from transformers' classes, so that another version may work, fail or, worse, compute something else.
    A copy of the package that was put on the path without being installed has no metadata, and nothing is said.
    """
    try:
        requirements = [Requirement(line) for line in requires("wallaroo-hf") or ()]
        installed = version("transformers")
    except PackageNotFoundError:
        return
    tested = next(one.specifier for one in requirements if one.name == "transformers")
    if not tested.contains(installed, prereleases=True):
        warnings.warn(
            f"wallaroo-hf was tested with transformers {tested}, but {installed} is installed; run "
            f"`pip install 'transformers{tested}'` if something fails.",
            stacklevel=3,
        )
