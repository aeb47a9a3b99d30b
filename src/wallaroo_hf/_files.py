"""Files and folders that are whole or not there: written under another name, then renamed."""

import contextlib
import mimetypes
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Endings of files that people have at hand here; most others are known to `mimetypes` (its own list, not the system's).
_ENDINGS = (
    *(
        ".safetensors",
        ".ckpt",
        ".pt",
        ".pth",
        ".bin",
        ".gguf",
        ".onnx",
        ".npz",
        ".npy",
        ".parquet",
        ".arrow",
        ".jsonl",
    ),
    *(".yaml", ".yml", ".toml", ".log", ".webp", ".avif", ".heic", ".jxl", ".jfif", ".tga"),
)
_TYPES = mimetypes.MimeTypes()


def has_file_name(path: Path) -> bool:
    """Whether a path ends like the name of a file (`.jpg`, `.safetensors`), not of a folder (`run.v2`)."""
    return path.suffix.lower() in _ENDINGS or any(_TYPES.guess_type(f"x{path.suffix.lower()}"))


def require_folder(output: Path) -> None:
    """Makes sure that a path is a folder or can become one.

    Raises:
        ValueError: if it or a part of it is a file, or if it is not there and named like a file.
    """
    path = output.absolute()
    if path.is_dir():
        return
    for part in (path, *path.parents):
        if part.exists() and not part.is_dir():
            raise ValueError(f"The output '{output}' must be a folder, but '{part}' is a file; give another name.")
    if has_file_name(path):
        raise ValueError(
            f"The output '{output}' must be a folder, but is named like a file; give a name without '{path.suffix}' (or "
            "make that folder first)."
        )


def require_new(output: Path) -> None:
    """Makes sure that a folder can be written without touching anything.

    Raises:
        ValueError: if `output` already holds something, is a file, or is named like one.
    """
    require_folder(output)
    if output.exists() and any(output.iterdir()):
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
