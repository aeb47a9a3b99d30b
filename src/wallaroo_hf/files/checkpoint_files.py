"""Finding a checkpoint's files, here or on the Hub, and reading what is in them without torch."""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

from .parsing import parse_json
from .whole import require_cache

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
SETTINGS = ("*.json", "*.jinja", "*.txt")
_LONGEST_HEADER = 100_000_000  # bytes, as in safetensors itself
# What decides, with the weights, what a checkpoint draws and answers; others of its files only tell about it.
_DECISIVE = (
    *("config.json", "generation_config.json", "processor_config.json", "preprocessor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("merges.txt", "chat_template.jinja", "chat_template.json"),
)

__all__ = [
    "TensorInfo",
    "checkpoint_digest",
    "find_checkpoint",
    "find_folder",
    "read_json",
    "weight_files",
    "weight_headers",
]


@dataclass(frozen=True)
class TensorInfo:
    """What a safetensors header says of one tensor: its dtype (`"BF16"`), its shape and its size in bytes."""

    dtype: str
    shape: tuple[int, ...]
    num_bytes: int


def find_checkpoint(name: str | Path, revision: str | None = None, weights: bool = True) -> Path:
    """The folder of a checkpoint; one on the Hub is downloaded into the cache first.

    Args:
        name: a folder, or a Hub id.
        revision: branch, tag or commit on the Hub.
        weights: whether the weights are needed too.

    Raises:
        ValueError: if there is no checkpoint of that name.
    """
    remedy = "give a folder that `wallaroo convert` wrote"
    patterns = [*SETTINGS, *(["*.safetensors"] if weights else [])]
    folder = find_folder(name, patterns, "checkpoint", f"{remedy}, or a Hub id such as org/name", revision)
    if not (folder / "config.json").is_file():
        raise ValueError(f"No checkpoint is in '{name}' (there is no config.json); {remedy}.")
    return folder


def find_folder(
    name: str | Path, patterns: Sequence[str], what: str, remedy: str, revision: str | None = None
) -> Path:
    """A folder; of one on the Hub some files are downloaded into the cache first.

    Args:
        name: a folder, or a Hub id.
        patterns: of the files that are needed.
        what: what it should be, for messages.
        remedy: what to give, for messages.
        revision: branch, tag or commit on the Hub.

    Raises:
        ValueError: if there is none of that name.
    """
    folder = Path(name)
    if folder.is_file():
        raise ValueError(f"The {what} '{name}' is a file; give the folder that it is in, or a Hub id.")
    if folder.is_dir():
        if revision is not None:
            raise ValueError(f"A revision is for a {what} on the Hub, but '{name}' is a folder; leave it out.")
        return folder
    if str(name).startswith((".", "/", "~")) or str(name).count("/") != 1:
        raise ValueError(f"No {what} could be loaded from '{name}', which does not exist; {remedy}.")
    require_cache(Path(HF_HUB_CACHE), "the Hub's files", "HF_HUB_CACHE", writable=False)
    try:
        return Path(snapshot_download(str(name), revision=revision, allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"The {what} '{name}' is neither a folder nor to be had from the Hub ({reason}); check its name."
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: naming the file, if it is damaged.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"'{path}' could not be read ({error}); restore it.") from error
    if not isinstance(content, dict):
        raise ValueError(f"'{path}' does not hold a JSON object; restore it.")
    return content


def weight_files(folder: Path, single: str = SINGLE, index: str = INDEX) -> list[Path]:
    """The safetensors files of a checkpoint.

    Args:
        folder: of the checkpoint.
        single: what they are called where there is one.
        index: what lists them where there are several.

    Raises:
        ValueError: if there are none, or one that the index names is missing.
    """
    names = {single}
    if (folder / index).is_file():
        names = set(read_json(folder / index).get("weight_map", {}).values())
    files = [folder / name for name in sorted(names)]
    missing = [path.name for path in files if not path.is_file() or path.parent != folder]
    if missing or not files:
        raise ValueError(f"'{folder}' lacks the weights {', '.join(missing) or single}; download or save it again.")
    return files


def checkpoint_digest(folder: Path) -> str:
    """SHA-256 of the files that decide what a checkpoint draws and answers: weights, settings, tokenizer, chat template.

    Every byte is read: fine-tunes of one base have files of equal sizes.

    Raises:
        ValueError: if weights are missing.
    """
    digest = hashlib.sha256()
    settings = [folder / name for name in _DECISIVE if (folder / name).is_file()]
    for path in (*settings, *weight_files(folder)):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def weight_headers(folder: Path) -> dict[str, TensorInfo]:
    """Every tensor of a checkpoint by name, read off the headers of its files.

    Raises:
        ValueError: if a file is missing or damaged.
    """
    tensors: dict[str, TensorInfo] = {}
    for path in weight_files(folder):
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                if length > _LONGEST_HEADER:
                    raise ValueError(f"its header would have {length} bytes")
                header = parse_json(file.read(length))
            for name, entry in header.items():
                if name != "__metadata__":
                    start, end = entry["data_offsets"]
                    tensors[name] = TensorInfo(entry["dtype"], tuple(entry["shape"]), end - start)
        except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
            raise ValueError(f"The weights '{path}' cannot be read ({error}); download or save them again.") from error
    return tensors
