"""Records of a comparison: what was set, how large models are, and which files belong to a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...files.parsing import parse_json

__all__ = ["MANIFEST_FILE", "check_settings", "file_hashes", "parameters_of", "read_record"]

MANIFEST_FILE = "manifest.json"
_BLOCK = 1 << 20  # bytes that are read together


def read_record(path: Path) -> dict[str, Any] | None:
    """What a JSON file of a comparison says; None if it is not there.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        found = parse_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); remove it, and what it tells of is made anew.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is not what this command writes; remove it, and what it tells of is made anew.")
    return found


def check_settings(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses what was made with other settings.

    Args:
        path: of the record, for the message.
        before: its settings.
        now: those that are asked for.

    Raises:
        ValueError: naming up to three that differ.
    """
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if changed:
        told = ", ".join(f"{key} {_brief(before.get(key))}, now {_brief(now.get(key))}" for key in changed[:3])
        raise ValueError(
            f"{path} was made with other settings ({told}); choose another --output, or the same settings."
        )


def parameters_of(model: Any, codec: str, is_trained: Callable[[str], bool]) -> dict[str, int]:
    """Numbers of parameters: `total` without the image codec, `trained` and `frozen` among these, and the `codec`'s.

    A linear codec, which is computed, has numbers that are no parameters; they count as the codec's.

    Args:
        model: a new one.
        codec: how names of the image codec's weights begin.
        is_trained: whether a parameter of a name is trained.
    """
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    own = {name: size for name, size in sizes.items() if not name.startswith(codec)}
    trained = sum(size for name, size in own.items() if is_trained(name))
    stored = sum(tensor.numel() for name, tensor in model.state_dict().items() if name.startswith(codec))
    total = sum(own.values())
    return {"total": total, "trained": trained, "frozen": total - trained, "codec": stored}


def file_hashes(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """SHA-256 of files by their path within a folder.

    Args:
        folder: whose.
        names: files, or folders with all that is in them.
    """
    found: dict[str, str] = {}
    for name in names:
        start = folder / name
        paths = sorted(path for path in start.rglob("*") if path.is_file()) if start.is_dir() else [start]
        found |= {path.relative_to(folder).as_posix(): _hash(path) for path in paths}
    return found


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _brief(value: Any) -> str:
    """A setting in a message; hashes are cut."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
