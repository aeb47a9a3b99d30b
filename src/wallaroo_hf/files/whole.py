"""Files and folders that are whole or not there: written under another name, then renamed, with the modes of any other."""

import contextlib
import errno
import mimetypes
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

# What libraries say that do not pass on the system's error: safetensors' and torch's writers, the latter of any failure.
_NO_SPACE_WORDS = ("No space left on device", "os error 28", "Disk quota exceeded", "os error 122")
_TORCH_WRITER_WORDS = ("PytorchStreamWriter failed", "inline_container.cc")
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
# Names of what is not whole yet
_PARTIAL = re.compile(r"\..+-partial-[0-9a-f]{8}|\..+-[0-9a-f]{8}\.[A-Za-z0-9]+")
_TYPES = mimetypes.MimeTypes()


class FullDiskError(OSError):
    """There is no room for what is being written."""


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
def new_folder(output: Path, replace: bool = False) -> Iterator[Path]:
    """A temporary folder beside `output` that becomes `output` when the block ends, and vanishes if it fails.

    Args:
        replace: an `output` that is there already makes way once the new one is whole.

    Raises:
        ValueError: if `output` already holds something, unless `replace`.
        FullDiskError: if there is no room.
    """
    if not replace:
        require_new(output)
    output = output.resolve()  # the folder may be the current one, or a link
    with full_disk_said(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        partial = output.with_name(f".{output.name}-partial-{secrets.token_hex(4)}")
        partial.mkdir()
        try:
            yield partial
            give_usual_modes(partial)
            if output.exists():
                (shutil.rmtree if replace else os.rmdir)(output)
            partial.rename(output)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, of the same kind, that replaces `path` when the block ends.

    Raises:
        FullDiskError: if there is no room.
    """
    with full_disk_said(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
        try:
            mode = _create(partial)
            yield partial
            partial.chmod(mode)  # some libraries write into a file of their own, and give it this name
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Removes what [`new_file`] and [`new_folder`] left in a folder when their process was killed.

    Args:
        folder: where no other process is writing.
    """
    for path in folder.glob(".*"):
        if _PARTIAL.fullmatch(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _create(path: Path) -> int:
    """Makes an empty file that must not be there yet, and returns the mode that the system gave it by the umask."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def give_usual_modes(folder: Path) -> None:
    """Makes the files of a folder readable for whom new files are by the umask; safetensors makes them for their owner."""
    probe = folder / f".mode-{secrets.token_hex(4)}"
    try:
        mode = _create(probe)
    finally:
        probe.unlink(missing_ok=True)
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            own = stat.S_IMODE(path.stat().st_mode)
            if own | mode != own:
                path.chmod(own | mode)


def require_cache(folder: Path, whose: str, variable: str, writable: bool = True) -> None:
    """Makes sure that a cache is there, before a library fails for want of it without a word of what to do.

    Args:
        whose: what is kept in it.
        variable: of the environment, that moves it.
        writable: whether it will be written into.

    Raises:
        ValueError: naming the variable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if writable and not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError("it may not be written into")
    except OSError as error:
        raise ValueError(
            f"The cache of {whose}, '{folder}', cannot be used ({error.strerror or error}); set {variable} (or HF_HOME, "
            "where it is) to a folder that can be written."
        ) from error


@contextlib.contextmanager
def full_disk_said(path: Path | None = None) -> Iterator[None]:
    """Turns what any library raises on a full disk into one sentence; other errors pass.

    Args:
        path: what is written in the block.

    Raises:
        FullDiskError: if there is no room.
    """
    try:
        yield
    except FullDiskError:
        raise
    except _writing_errors() as error:
        sentence = no_space_sentence(error, path)
        if sentence is None:
            raise
        raise FullDiskError(sentence) from error


def _writing_errors() -> tuple[type[BaseException], ...]:
    from safetensors import SafetensorError

    return (OSError, RuntimeError, SafetensorError)


def no_space_sentence(error: BaseException, path: Path | None) -> str | None:
    """What to say of an error that a full disk raised, or raised behind it; None for others."""
    advice = "make room there, or write to another disk, and run the same command again"
    link: BaseException | None = error
    while link is not None:
        number = getattr(link, "errno", None)
        where = path or getattr(link, "filename", None)
        named = f"for '{where}'" if where else "on the disk that is written to"
        if number in (errno.ENOSPC, errno.EDQUOT) or any(words in str(link) for words in _NO_SPACE_WORDS):
            return f"No space is left {named}; {advice}."
        if isinstance(link, RuntimeError) and any(words in str(link) for words in _TORCH_WRITER_WORDS):
            named = f"'{where}'" if where else "A file"
            return f"{named} could not be written, as if there were no space left; {advice}."
        link = link.__cause__ or link.__context__
    return None
