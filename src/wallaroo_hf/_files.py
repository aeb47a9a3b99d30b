"""Files and folders that are whole or not there: written under another name, then renamed."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


def require_new(output: Path) -> None:
    """Makes sure that a folder can be written without touching anything.

    Raises:
        ValueError: if `output` already holds something.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"The output '{output}' already exists and is not empty; choose another folder or remove it.")


@contextlib.contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """A temporary folder beside `output` that becomes `output` when the block ends, and vanishes if it fails.

    Raises:
        ValueError: if `output` already holds something.
    """
    require_new(output)
    output = output.resolve()  # the folder may be the current one, or a link
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{output.name}-partial-", dir=output.parent))
    try:
        yield partial
        if output.exists():
            output.rmdir()
        partial.chmod(0o755)
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, of the same kind, that replaces `path` when the block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent, delete=False
    ) as file:
        partial = Path(file.name)
    try:
        yield partial
        partial.chmod(0o644)  # temporary files are readable for their owner only
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
