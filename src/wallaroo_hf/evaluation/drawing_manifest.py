"""`manifest.json`: what a folder of drawings holds, and how it was drawn. Every process writes the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..files.parsing import parse_json
from ..files.whole import new_file
from .drawing_plans import ScoredFile

MANIFEST_FILE = "manifest.json"
SAMPLES = "samples"  # every picture as it was drawn
IMAGES = "images"  # what the scorer is given; there once all is drawn


@dataclass(frozen=True)
class Drawing:
    """A picture with all that decides it.

    Attributes:
        name: its file is `samples/<name>.png`.
        prompt: what to draw, or how to edit.
        source: the picture to edit, relative to the folder of sources; or None.
        seed: of its noise.
        template: index, or text.
        height: of the file, in pixels.
        width: likewise.
    """

    name: str
    prompt: str
    source: str | None
    seed: int
    template: int | str
    height: int
    width: int


@dataclass(frozen=True)
class Manifest:
    """What the file says.

    Attributes:
        benchmark: its name.
        settings: recipe, seed, checkpoint hash and all else that decides the pictures; compared when a run goes on.
        versions: of the software, compared too.
        model: the checkpoint's name, for people.
        drawings: every picture.
        files: what the scorer reads.
    """

    benchmark: str
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    model: str
    drawings: Sequence[Drawing]
    files: Sequence[ScoredFile]

    def write(self, folder: Path) -> None:
        """Writes it down, or checks that the folder's own says the same.

        Raises:
            ValueError: if the folder was made from other prompts, by another checkpoint or with other settings; or if it
                holds something else.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / MANIFEST_FILE).exists():
            self._compare(read_manifest(folder), folder)
            return
        taken = [name for name in (SAMPLES, IMAGES) if (folder / name).exists()]
        if taken:
            raise ValueError(f"'{folder}' has a folder {taken[0]} but no {MANIFEST_FILE}; choose another --output.")
        with new_file(folder / MANIFEST_FILE) as partial:
            partial.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    def _compare(self, before: Manifest, folder: Path) -> None:
        told = []
        ours, theirs = ({**m.settings, **m.versions, "benchmark": m.benchmark} for m in (self, before))
        for name in {**theirs, **ours}:
            if ours.get(name) != theirs.get(name):
                told.append(f"{name} {_brief(theirs.get(name))}, now {_brief(ours.get(name))}")
        if told:
            raise ValueError(
                f"'{folder}' holds pictures of another run ({'; '.join(told[:3])}); choose another --output, or repeat the "
                "command that it was made with."
            )


def read_manifest(folder: Path) -> Manifest:
    """Reads a folder's manifest.

    Raises:
        ValueError: if there is none, or a damaged one.
    """
    path = folder / MANIFEST_FILE
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
        drawings = [Drawing(**entry) for entry in values.pop("drawings")]
        files = [ScoredFile(e["path"], tuple(e["pictures"]), e["text"]) for e in values.pop("files")]
        return Manifest(**values, drawings=drawings, files=files)
    except FileNotFoundError as error:
        raise ValueError(
            f"'{folder}' has no {MANIFEST_FILE}; give the --output of `wallaroo evaluate geneval`, `dpg` or `imgedit`."
        ) from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"'{path}' is damaged ({error}); draw into a new folder.") from error


def digest(value: Any) -> str:
    """SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def _brief(value: Any) -> str:
    """A setting in a message; hashes are cut."""
    return value[:8] if isinstance(value, str) and len(value) == 64 else json.dumps(value, ensure_ascii=False)
