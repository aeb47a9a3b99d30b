"""An evaluation for people and programs: a table, `scores.json`, and sheets of what went well and what did not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.table import Table

from .._files import new_file
from ..scenes import render
from ..training.reports import contact_sheet
from .items import TASKS, Item
from .results import Result, ResultsFile
from .scores import GROUPS, Breakdown, SceneScores

SCORES_FILE = "scores.json"
NUM_SHOWN = 12  # successes on a sheet, and as many failures
COLUMNS = 4
_CELL = 192  # pixels; smaller pictures are enlarged to about it, by whole numbers
_GAP = 4  # pixels between a picture shown and the one made of it
_HEADINGS = {"all": "all", "en": "English", "zh": "Chinese"}


def write_json(values: Any, path: Path) -> None:
    """Writes a JSON file that is whole or not there."""
    with new_file(path) as partial:
        partial.write_text(json.dumps(values, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def remove_reports(folder: Path) -> None:
    """Removes scores and sheets that do not belong to what will be in the folder."""
    for name in (SCORES_FILE, *(f"{task}{suffix}" for task in TASKS for suffix in (".png", ".txt"))):
        (folder / name).unlink(missing_ok=True)


def scores_table(scores: SceneScores) -> Table:
    """The scores with their intervals, by task, category and size, and by language."""
    groups = [group for group in GROUPS if any(group in found for found in scores.tasks.values())]
    table = Table(title="Scenes: share judged right, with 95 % intervals", title_justify="left")
    table.add_column("")
    for group in groups:
        table.add_column(_HEADINGS[group], justify="right", no_wrap=True)
    table.add_column("items", justify="right")
    for task, found in scores.tasks.items():
        table.add_section()
        whole = found["all"]
        rows: list[tuple[str, str, str]] = [(task, "overall", "")]
        rows += [(f"  {name}", "categories", name) for name in whole.categories]
        rows += [(f"  {name} pixels", "sizes", name) for name in whole.sizes]
        for label, kind, name in rows:
            cells = [_cell(found.get(group), kind, name) for group in groups]
            style = "bold" if kind == "overall" else None
            table.add_row(label, *cells, _cell(whole, kind, name, count=True), style=style)
    return table


def _cell(breakdown: Breakdown | None, kind: str, name: str, count: bool = False) -> str:
    if breakdown is None:
        return ""
    score = breakdown.overall if kind == "overall" else getattr(breakdown, kind).get(name)
    if score is None:
        return ""
    return str(score.num_items) if count else str(score)


def write_sheet(items: Sequence[Item], results: ResultsFile, path: Path) -> Path:
    """One sheet for a task: successes, then failures with what is wrong, spread over the items.

    Args:
        items: of one task, all of them judged.
        results: what became of them.
        path: the image file to write.
    """
    chosen = [
        *_spread([item for item in items if results[item.name].ok]),
        *_spread([item for item in items if not results[item.name].ok]),
    ]
    pictures = [_picture(item, results) for item in chosen]
    captions = [_caption(item, results[item.name]) for item in chosen]
    return contact_sheet(pictures, captions, path, columns=COLUMNS, max_side=2 * _CELL + _GAP)


def _spread(items: Sequence[Item]) -> list[Item]:
    """Up to `NUM_SHOWN` of some items, at even distances."""
    count = min(NUM_SHOWN, len(items))
    return [items[place * len(items) // count] for place in range(count)]


def _picture(item: Item, results: ResultsFile) -> Image.Image:
    """What was shown and what was made of it, side by side; enlarged so that captions have room."""
    pictures = [] if item.scene is None else [render(item.scene)]
    if results[item.name].answer is None:
        with Image.open(results.picture_path(item.name)) as picture:
            pictures.append(picture.convert("RGB"))
    scale = max(1, _CELL // max(item.height, item.width))
    pictures = [picture.resize((picture.width * scale, picture.height * scale), 0) for picture in pictures]
    width = sum(picture.width for picture in pictures) + _GAP * (len(pictures) - 1)
    sheet = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white")
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width + _GAP
    return sheet


def _caption(item: Item, result: Result) -> str:
    asked = item.prompt.prompt if item.prompt is not None else ""
    said = "" if result.answer is None else f" {result.answer or '(no answer)'}"
    if result.ok:
        return f"right: {asked}{said}".removesuffix(": ")
    return f"wrong: {asked}{'' if asked == '' else said + ' | '}{result.reason}"
