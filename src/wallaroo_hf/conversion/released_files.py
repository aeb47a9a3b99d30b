"""Reading the authors' files: finding them, here or on the Hub, and opening them without running what is inside."""

import contextlib
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HTTPError

from ..families.loading import some
from .archives import Checksums, damaged_record

# What libraries raise while they read files that they cannot make sense of.
LOADING_ERRORS = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
)
_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")


def find_file(source: str | Path, what: str) -> Path:
    """A local path for a local file, or for a file on the Hub (`org/name/path/to/file`, or `org/name` if it holds one).

    Args:
        source: path or Hub id; `@revision` may follow a Hub id.
        what: what the file is, for messages.

    Raises:
        ValueError: if there is no such file.
    """
    path = Path(source)
    if path.is_file():
        return path
    if path.is_dir():
        return path / _only_candidate(sorted(item.name for item in path.iterdir()), str(source), what)
    name, _, revision = str(source).partition("@")
    parts = name.strip("/").split("/")
    looks_local = str(source).startswith((".", "/", "~")) or len(parts) < 2 + name.endswith(_SUFFIXES)
    if looks_local:
        raise ValueError(f"The {what} '{source}' does not exist; give a file, or a Hub id such as org/name/file.ckpt.")
    repo, file = "/".join(parts[:2]), "/".join(parts[2:])
    with _asking_hub(source, what):
        files = [file] if file else HfApi().list_repo_files(repo, revision=revision or None)
    file = file or _only_candidate(files, repo, what)
    with _asking_hub(source, what):
        return Path(hf_hub_download(repo, file, revision=revision or None))


@contextlib.contextmanager
def _asking_hub(source: str | Path, what: str) -> Iterator[None]:
    """Puts a failure into one sentence, whether the Hub's client raised it or what that is built on (`HTTPError`)."""
    try:
        yield
    except (HTTPError, EntryNotFoundError, OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"The {what} '{source}' is neither a file here nor to be had from the Hub ({one_line(error)}); check the path "
            "or the Hub id."
        ) from error


def _only_candidate(names: Sequence[str], source: str, what: str) -> str:
    found = [name for name in names if name.endswith(_SUFFIXES)]
    if len(found) != 1:
        raise ValueError(
            f"'{source}' holds {len(found)} files that could be the {what} ({', '.join(found[:5]) or 'none'}); name one."
        )
    return found[0]


def one_line(error: Exception) -> str:
    """An error's first sentence, without its full stop, to quote within another."""
    text = " ".join(str(error).split("\n\n")[0].split())
    return re.split(r"(?<=\S)\.(?: |$)", text)[0][:200] or type(error).__name__


class ArchiveTensors(dict[str, torch.Tensor]):
    """Tensors of a memory-mapped archive by name, and the checksums to read them with."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], checksums: Checksums) -> None:
        super().__init__(tensors)
        self.checksums = checksums


def load_tensors(path: Path, wrapper_keys: Sequence[str], what: str) -> ArchiveTensors:
    """Opens a PyTorch file memory-mapped and without executing code, and returns its tensors by name.

    The numbers are not read here; whoever reads a tensor has it compared with its checksum ([`Checksums.check`]).

    Args:
        wrapper_keys: names under which the tensors may be nested, tried in order; a bare dict of tensors is fine too.

    Raises:
        ValueError: if the file is damaged, holds anything but tensors and plain values, or has another structure.
    """
    content: Any = None
    storages: list[torch.UntypedStorage] = []

    def note(storage: torch.UntypedStorage, _: str) -> torch.UntypedStorage:
        storages.append(storage)
        return storage  # where it is: on the CPU

    try:
        with path.open("rb") as file:
            is_archive = zipfile.is_zipfile(file)
        if is_archive:  # torch maps nothing else: what versions before 1.6 wrote is refused as damaged files are
            damage = damaged_record(path)
            if damage is not None:
                raise ValueError(damage)
            content = torch.load(path, map_location=note, weights_only=True, mmap=True)
            checksums = Checksums(path, storages)
    except pickle.UnpicklingError as error:
        forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise ValueError(
            f"The {what} '{path}' holds more than tensors ({forbidden[1] if forbidden else one_line(error)}) and could "
            "run code, so it is not opened; get a file from its authors that holds tensors only."
        ) from error
    except (*LOADING_ERRORS, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(
            f"The {what} '{path}' cannot be read ({one_line(error)}); it is damaged or incomplete, download it again."
        ) from error
    if not is_archive:
        raise ValueError(
            f"The {what} '{path}' is not a file that `torch.save` of PyTorch 1.6 or later has written; it is damaged, "
            "incomplete or something else, download it again."
        )
    for key in wrapper_keys:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    items = content.items() if isinstance(content, dict) else ()
    if not items or not all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in items):
        raise ValueError(
            f"The {what} '{path}' is not a dictionary of tensors (nor has one under {' or '.join(wrapper_keys)}); is it "
            "the right file?"
        )
    odd = [f"`{key}` is {kind}" for key, value in items if (kind := _odd_kind(value)) is not None]
    if odd:
        raise ValueError(
            f"The {what} '{path}' has weights that are no plain tensors: {some(odd)}; save it with those."
        )
    return ArchiveTensors(content, checksums)


def _odd_kind(tensor: torch.Tensor) -> str | None:
    """What a tensor is if it has no numbers of its own in rows and columns."""
    if tensor.is_meta:
        return "on the meta device, without data"
    if tensor.is_quantized:
        return "quantized"
    if tensor.layout != torch.strided:
        return f"sparse ({str(tensor.layout).removeprefix('torch.')})"
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        return f"a {type(tensor).__name__}"
    return None
