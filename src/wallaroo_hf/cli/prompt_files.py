"""Files of prompts: reading them, cutting them into batches, and sharing the batches among processes. No torch."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..files.checkpoint_files import checkpoint_digest, find_checkpoint
from ..files.parsing import parse_json
from ..files.whole import new_file
from ..files.whole_text import printable

MANIFEST = "prompts.json"
_SHOWN = 60  # characters of an entry that messages quote
_NAME = re.compile(r"[\w][\w.-]{0,120}")  # no separators: a name never leads out of the folder
_ENTRY = {
    "prompt": str,
    "name": str,
    "seed": int,
    "negative_prompt": str,
    "height": int,
    "width": int,
    "aspect_ratio": (str, int, float),
}

__all__ = ["MANIFEST", "PromptJob", "check_manifest", "plan_batches", "read_prompts"]


@dataclass(frozen=True)
class PromptJob:
    """One image to draw.

    Attributes:
        prompt: what to draw.
        seed: of its noise.
        file: its file's name in the output folder.
        line: where it stands in the file of prompts, counted from 1.
        settings: what the line says about it: `negative_prompt`, `height`, `width`, `aspect_ratio`.
    """

    prompt: str
    seed: int
    file: str
    line: int
    settings: Mapping[str, Any]


def read_prompts(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The entries of a file with their line numbers: one prompt a line, or (`.jsonl`) one JSON object a line.

    Empty lines are skipped. An object has a `prompt`, and may have a `name` for its file, a `seed`, a `negative_prompt`,
    `height` and `width`, or an `aspect_ratio`.

    Raises:
        ValueError: naming file and line, for what is no entry.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"The prompts '{path}' could not be read ({error}); give a text file in UTF-8.") from error
    entries = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            entry = _json_entry(line, path, number) if path.suffix == ".jsonl" else {"prompt": line.strip()}
            if not entry["prompt"].strip():
                raise ValueError(f"Line {number} of '{path}' has an empty prompt; say what to draw or remove it.")
            entries.append((number, entry))
    if not entries:
        raise ValueError(f"The file '{path}' holds no prompts; write one a line.")
    return entries


def _json_entry(line: str, path: Path, number: int) -> dict[str, Any]:
    where = f"Line {number} of '{path}'"
    try:
        entry = parse_json(line)
    except ValueError as error:
        raise ValueError(f"{where} is no JSON object ({error}); correct it.") from error
    if not isinstance(entry, dict) or "prompt" not in entry:
        raise ValueError(f'{where} must be a JSON object with a "prompt".')
    for key, value in entry.items():
        if key not in _ENTRY:
            raise ValueError(
                f"{where} has an unknown entry '{printable(key, _SHOWN)}'; known ones are {', '.join(_ENTRY)}."
            )
        if not isinstance(value, _ENTRY[key]) or isinstance(value, bool):  # type: ignore[arg-type]
            raise ValueError(
                f"{where} has {printable(repr(value), _SHOWN)} for '{key}', which is of the wrong type; correct it."
            )
    if "name" in entry and not _NAME.fullmatch(entry["name"]):
        raise ValueError(
            f"{where} has the name {entry['name'][:100]!r}, but names are made of letters, digits, '_', '-' and '.'; the "
            "image is written into the output folder, nowhere else."
        )
    if not 0 <= entry.get("seed", 0) <= 2**62:
        raise ValueError(f"{where} has the seed {entry['seed']}, but seeds are 0 to 2**62.")
    return entry


def plan_batches(
    entries: Sequence[tuple[int, Mapping[str, Any]]], num_images: int, seed: int, batch_size: int
) -> list[list[PromptJob]]:
    """Cuts the whole list into batches, whoever will draw them.

    Image k of the list gets `seed + k`, copy c of an entry with a seed of its own that seed + c.

    Args:
        entries: from [`read_prompts`].
        num_images: copies of each.
        seed: of the first image.
        batch_size: images of a batch.

    Raises:
        ValueError: if two images would have one name.
    """
    jobs: list[PromptJob] = []
    for line, entry in entries:
        for copy in range(num_images):
            own = entry["seed"] + copy if "seed" in entry else seed + len(jobs)
            stem = entry.get("name") or f"{len(jobs):05d}-{_slug(entry['prompt'])}-{own}"
            if "name" in entry and num_images > 1:
                stem = f"{stem}-{copy + 1}"
            settings = {key: value for key, value in entry.items() if key not in ("prompt", "name", "seed")}
            jobs.append(PromptJob(entry["prompt"], own, f"{stem.removesuffix('.png')}.png", line, settings))
    lines: dict[str, int] = {}
    for job in jobs:
        other = lines.setdefault(job.file.casefold(), job.line)
        if other != job.line:
            raise ValueError(
                f"Lines {other} and {job.line} both name their image '{job.file}'; give each its own name."
            )
    return [jobs[start : start + batch_size] for start in range(0, len(jobs), batch_size)]


def _slug(prompt: str) -> str:
    return re.sub(r"\W+", "-", prompt.lower()).strip("-")[:40].rstrip("-") or "image"


def check_manifest(
    folder: Path, batches: Sequence[Sequence[PromptJob]], checkpoint: str, settings: Mapping[str, Any]
) -> None:
    """Writes down what the folder holds, or refuses a folder that holds something else.

    Args:
        folder: of the images.
        batches: from [`plan_batches`].
        checkpoint: folder or Hub id.
        settings: how they are drawn.

    Raises:
        ValueError: if images were drawn into it before from other prompts, by another checkpoint or with other settings,
            or if its `prompts.json` is something else.
    """
    ours = {
        "prompts": hashlib.sha256(
            json.dumps([[asdict(job) for job in batch] for batch in batches], sort_keys=True).encode()
        ).hexdigest(),
        "checkpoint": checkpoint_digest(find_checkpoint(checkpoint)),
        **settings,
    }
    path = folder / MANIFEST
    if path.is_file():
        theirs = _read_manifest(path)
        different = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
        if different:
            raise ValueError(
                f"The folder '{folder}' holds images of another run (other {', '.join(different)}); choose another folder, "
                "or repeat the first command to go on."
            )
        return
    with new_file(path) as partial:
        partial.write_text(json.dumps(ours, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict) or not {"prompts", "checkpoint"} <= content.keys():
        raise ValueError(
            f"The folder '{path.parent}' holds a {path.name} that `generate --prompts` did not write; choose another "
            "folder."
        )
    return content
