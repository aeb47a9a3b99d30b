"""Reading the authors' files: finding them, here or on the Hub, and opening them without running what is inside."""

import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

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
        return _only_candidate([str(item) for item in sorted(path.iterdir())], str(source), what, Path)
    name, _, revision = str(source).partition("@")
    parts = name.split("/")
    looks_local = str(source).startswith((".", "/", "~")) or len(parts) < 2
    if looks_local:
        raise ValueError(f"The {what} '{source}' does not exist; give a file, or a Hub id such as org/name/file.ckpt.")
    repo = "/".join(parts[:2])
    try:
        if len(parts) > 2:
            return Path(hf_hub_download(repo, "/".join(parts[2:]), revision=revision or None))
        files = HfApi().list_repo_files(repo, revision=revision or None)
        return _only_candidate(
            files, repo, what, lambda file: Path(hf_hub_download(repo, file, revision=revision or None))
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise ValueError(
            f"The {what} '{source}' is neither a file here nor to be had from the Hub "
            f"({str(error).strip().splitlines()[0][:200]}); check the path or the Hub id."
        ) from error


def _only_candidate(names: Sequence[str], place: str, what: str, open_it) -> Path:
    found = [name for name in names if name.endswith(_SUFFIXES)]
    if len(found) != 1:
        raise ValueError(
            f"'{place}' holds {len(found)} files that could be the {what} ({', '.join(found[:5]) or 'none'}); name one."
        )
    return open_it(found[0])


def load_tensors(path: Path, wrapper_keys: Sequence[str], what: str) -> dict[str, torch.Tensor]:
    """Opens a PyTorch file memory-mapped and without executing code, and returns its tensors by name.

    Args:
        wrapper_keys: names under which the tensors may be nested, tried in order; a bare dict of tensors is fine too.

    Raises:
        ValueError: if the file is damaged, holds anything but tensors and plain values, or has another structure.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        if "weights_only" in str(error).lower() or "unsupported global" in str(error).lower():
            raise ValueError(
                f"The {what} '{path}' holds more than tensors (code that would run on loading, or an unreadable "
                "pickle), so it is not opened; get the file from its authors again."
            ) from error
        raise ValueError(
            f"The {what} '{path}' cannot be read ({str(error).strip().splitlines()[0][:200] if str(error) else 'empty'}); "
            "it is damaged or incomplete, download it again."
        ) from error
    for key in wrapper_keys:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise ValueError(
            f"The {what} '{path}' is not a dictionary of tensors (nor has one under {' or '.join(wrapper_keys)}); is it "
            "the right file?"
        )
    return content
