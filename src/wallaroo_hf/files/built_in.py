"""Where the built-in checkpoint is. Imports nothing that takes time."""

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "built_in"


def default_checkpoint() -> str:
    """The folder of the small checkpoint that ships with the package; `from_pretrained` loads it.

    It was trained from nothing by this project, with the paper's stages, on procedural scenes: flat shapes in colours, in
    English and Chinese. It draws, edits and answers about such scenes, and nothing else. Its README says how well.

    Raises:
        FileNotFoundError: if this copy of the package was made without it.
    """
    if not (FOLDER / "config.json").exists():
        raise FileNotFoundError(
            f"The built-in checkpoint is not in '{FOLDER}'; install wallaroo-hf from its wheel or its repository, or name "
            "another checkpoint."
        )
    return str(FOLDER)
