"""The file of verdicts: one JSON line per item under a header of settings, so that an evaluation can be continued."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..files.parsing import parse_json
from ..files.whole import new_file
from ..scenes import Verdict
from .items import ALL_TASKS, Item, Output

ITEMS_FILE = "items.jsonl"
PICTURES = "pictures"


@dataclass(frozen=True)
class Result:
    """What became of an item.

    Attributes:
        name: the item's.
        ok: the verdict.
        reason: why not; empty if it is good.
        answer: the text of an answer; None where only a picture was made.
    """

    name: str
    ok: bool
    reason: str
    answer: str | None


def read_verdicts(folder: Path) -> dict[str, bool]:
    """Whether each item of a folder of results is right, by name.

    Args:
        folder: that a [`ResultsFile`] wrote.
    """
    _, *lines = (folder / ITEMS_FILE).read_bytes().splitlines()
    return {values["name"]: values["ok"] for values in map(parse_json, lines)}


class ResultsFile(Mapping[str, Result]):
    """Results by item name, in `items.jsonl` of a folder; the pictures made are beside it, in `pictures`.

    An item counts once its line is whole: a line that was torn when a run was killed is dropped by the next one.

    Args:
        folder: where; made if it is not there.
        settings: what decides the results; written to the file's first line.
        resume: False starts over; results and pictures of an earlier evaluation in the folder go.

    Raises:
        ValueError: if the folder holds an evaluation with other settings, or a damaged file.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], resume: bool = True) -> None:
        self.path, self.pictures = folder / ITEMS_FILE, folder / PICTURES
        self._settings = dict(settings)
        self._results: dict[str, Result] = {}
        folder.mkdir(parents=True, exist_ok=True)
        if resume and self.path.exists():
            self._read()
        else:
            self._start()

    def __getitem__(self, name: str) -> Result:
        return self._results[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    def add(self, items: Sequence[Item], outputs: Sequence[Output], verdicts: Sequence[Verdict]) -> None:
        """Keeps what became of some items; their pictures are written before their lines."""
        lines = []
        for item, output, verdict in zip(items, outputs, verdicts, strict=True):
            pieces = output if isinstance(output, list) else [output]
            for picture in [piece for piece in pieces if not isinstance(piece, str)][:1]:
                with new_file(self.picture_path(item.name)) as partial:
                    picture.save(partial)
            said = [piece for piece in pieces if isinstance(piece, str)]
            answer = " ".join(" ".join(said).split()) if isinstance(output, list) else said[0] if said else None
            result = Result(item.name, verdict.ok, verdict.reason, answer)
            self._results[item.name] = result
            lines.append(json.dumps(asdict(result), ensure_ascii=False) + "\n")
        with self.path.open("ab") as file:
            file.write("".join(lines).encode())
            file.flush()
            os.fsync(file.fileno())

    def picture_path(self, name: str) -> Path:
        """Where the picture made of an item is."""
        return self.pictures / f"{name}.png"

    def _start(self) -> None:
        for task in ALL_TASKS:
            for picture in self.pictures.glob(f"{task}-*.png"):
                picture.unlink()
        header = json.dumps({"settings": self._settings}, ensure_ascii=False) + "\n"
        with new_file(self.path) as partial:
            partial.write_text(header, encoding="utf-8")

    def _read(self) -> None:
        *lines, torn = self.path.read_bytes().split(b"\n")
        if torn:
            os.truncate(self.path, self.path.stat().st_size - len(torn))
        for number, line in enumerate(lines, start=1):
            try:
                values = parse_json(line)
                settings = values["settings"] if number == 1 else {}
                result = Result(**values) if number > 1 else None
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(
                    f"{self.path}, line {number}, is not what this command writes; choose another --output, or start over "
                    "with --no-resume."
                ) from error
            if result is None:
                self._compare(settings)
            elif result.answer is not None or self.picture_path(result.name).exists():
                self._results[result.name] = result
        if not lines:
            self._start()

    def _compare(self, before: Mapping[str, Any]) -> None:
        changed = [name for name in {**before, **self._settings} if before.get(name) != self._settings.get(name)]
        if changed:
            told = ", ".join(
                f"{name} {_brief(before.get(name))}, now {_brief(self._settings.get(name))}" for name in changed[:3]
            )
            raise ValueError(
                f"{self.path.parent} holds an evaluation with other settings ({told}); choose another --output, or start "
                "over with --no-resume."
            )


def _brief(value: Any) -> str:
    """A setting in a message; hashes are cut."""
    return value[:8] if isinstance(value, str) and len(value) == 64 else json.dumps(value, ensure_ascii=False)
