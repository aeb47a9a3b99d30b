"""Released folders: a `config.json` beside `pytorch_model.bin`, or beside its shards and their index."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

from ..families.loading import some
from ..files.checkpoint_files import read_json
from .released_files import ArchiveTensors, find_file, load_tensors, one_line

__all__ = ["ReleasedFolder", "find_folder", "load_folder", "released_keys"]

_SINGLE, _INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
_SHARD = re.compile(r"pytorch_model-(\d+)-of-(\d+)\.bin")


@dataclass(frozen=True)
class ReleasedFolder:
    """What such a folder holds.

    Attributes:
        settings: its `config.json`.
        files: its weights, memory-mapped, file by file.
        tensors: all of them by name.
    """

    settings: dict[str, Any]
    files: tuple[ArchiveTensors, ...]
    tensors: dict[str, torch.Tensor]


def find_folder(source: str | Path, what: str) -> Path:
    """The local folder of a folder, of a file in it, or of a Hub id, which is downloaded into the cache.

    Args:
        source: path or Hub id; `@revision` may follow a Hub id.
        what: what it is, for messages.

    Raises:
        ValueError: if there is no such folder.
    """
    path = Path(source)
    if path.exists():
        return path if path.is_dir() else path.parent
    name, _, revision = str(source).partition("@")
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ValueError(f"The {what} '{source}' does not exist; give a folder, or a Hub id such as org/name.")
    try:
        patterns = ["config.json", "pytorch_model*"]
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError, OSError) as error:
        raise ValueError(
            f"The {what} '{source}' is neither a folder here nor to be had from the Hub ({one_line(error)}); check the "
            "path or the Hub id."
        ) from error


def load_folder(source: str | Path, what: str) -> ReleasedFolder:
    """Opens a folder's weights, memory-mapped and without executing code; see [`load_tensors`] for what is read when.

    Args:
        source: see [`find_folder`].
        what: what it is, for messages.

    Raises:
        ValueError: if settings or weights are missing or damaged, or the index and its shards contradict each other.
    """
    folder = find_folder(source, what)
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"The {what} '{source}' has no config.json; give the folder that its authors released, whole."
        )
    settings = read_json(folder / "config.json")
    files, tensors = [], dict[str, torch.Tensor]()
    for path, listed in _weight_files(folder, what).items():
        part = load_tensors(path, ("state_dict",), what)
        faults = [f"`{key}` is in two files" for key in sorted(tensors.keys() & part.keys())]
        if listed is not None:
            faults += [f"`{key}` is not in {path.name}" for key in sorted(listed - part.keys())]
            faults += [f"`{key}` of {path.name} is not in the index" for key in sorted(part.keys() - listed)]
        if faults:
            raise ValueError(f"The {what} '{folder}' contradicts itself: {some(faults)}; download it again.")
        files.append(part)
        tensors |= part
    return ReleasedFolder(settings, tuple(files), tensors)


def released_keys(source: str | Path) -> set[str]:
    """The names of all weights of a released checkpoint, which is a file or such a folder; no numbers are read.

    Args:
        source: path or Hub id, as [`find_file`] and [`find_folder`] take.

    Raises:
        ValueError: if there is none, or it is damaged.
    """
    path, name = Path(source), str(source).partition("@")[0]
    is_on_hub = not path.exists() and name.count("/") == 1 and not name.startswith((".", "/", "~"))
    if path.is_dir() or is_on_hub:
        folder = find_folder(source, "checkpoint")
        if any((folder / one).is_file() for one in (_SINGLE, _INDEX)) or _shards(folder):
            return set(load_folder(source, "checkpoint").tensors)
    return set(load_tensors(find_file(source, "checkpoint"), ("state_dict", "model", "module"), "checkpoint"))


def _weight_files(folder: Path, what: str) -> dict[Path, set[str] | None]:
    """The files of the weights, with the keys that the index says each has; None where there is no index.

    Raises:
        ValueError: if one is missing, or the index makes no sense.
    """
    if (folder / _SINGLE).is_file():
        return {folder / _SINGLE: None}
    if not (folder / _INDEX).is_file():
        return dict.fromkeys(_all_shards(folder, what))
    places = read_json(folder / _INDEX).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(file, str) for file in places.values()):
        raise ValueError(f"'{folder / _INDEX}' does not say which weights are where; download it again.")
    files: dict[Path, set[str] | None] = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name or not (folder / name).is_file():  # no path may lead out of the folder
            raise ValueError(
                f"The {what} '{folder}' lacks the weights {some([name])}, which its index names; download them."
            )
        files[folder / name] = {key for key, file in places.items() if file == name}
    return files


def _shards(folder: Path) -> dict[int, tuple[Path, int]]:
    """Shards by their number, each with how many there are."""
    found = {path: _SHARD.fullmatch(path.name) for path in folder.iterdir()}
    return {int(match[1]): (path, int(match[2])) for path, match in found.items() if match is not None}


def _all_shards(folder: Path, what: str) -> list[Path]:
    shards = _shards(folder)
    if not shards:
        raise ValueError(
            f"The {what} '{folder}' has neither {_SINGLE} nor {_INDEX}; give the folder that its authors released, whole."
        )
    total = max(count for _, count in shards.values())
    missing = [str(number) for number in range(1, total + 1) if number not in shards]
    if missing:
        raise ValueError(f"The {what} '{folder}' lacks shard {some(missing)} of {total}; download what is missing.")
    return [path for _, (path, _) in sorted(shards.items())]
