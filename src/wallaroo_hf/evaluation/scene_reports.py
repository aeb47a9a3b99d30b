"""An evaluation for people and programs: a table, `scores.json`, and sheets of what went well and what did not."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps
from rich import box
from rich.markup import escape
from rich.table import Table

from ..files.whole import new_file
from ..pictures.opening import open_image
from ..scenes import render
from ..training.reports import contact_sheet
from .items import ALL_TASKS, Item
from .results import Result, ResultsFile
from .scores import GROUPS, Breakdown, SceneScores

SCORES_FILE = "scores.json"
NUM_SHOWN = 12  # successes on a sheet, and as many failures
COLUMNS = 4
_SCALE = 2  # so that captions have room
_MAX_SIDE = 640  # pixels; of a picture or pair, enlarged
_GAP = 4  # pixels between a picture shown and the one made of it
_FRAMES = {True: "#3d9950", False: "#c0392b"}  # right, wrong: told also where no font can write the caption
_FRAME_WIDTH = 3
_NEAREST = Image.Resampling.NEAREST
_HEADINGS = {"all": "all", "en": "English", "zh": "Chinese"}


def write_json(values: Any, path: Path) -> None:
    """Writes a JSON file that is whole or not there."""
    with new_file(path) as partial:
        partial.write_text(json.dumps(values, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def remove_reports(folder: Path) -> None:
    """Removes scores and sheets that do not belong to what will be in the folder."""
    for name in (SCORES_FILE, *(f"{task}{suffix}" for task in ALL_TASKS for suffix in (".png", ".txt"))):
        (folder / name).unlink(missing_ok=True)


def scores_table(scores: SceneScores) -> Table:
    """The scores with their intervals, by task, category and size, and by language."""
    groups = [group for group in GROUPS if any(group in found for found in scores.tasks.values())]
    table = Table(title="Scenes: percent judged right (95 % interval)", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for group in groups:
        table.add_column(_HEADINGS[group], justify="right", no_wrap=True)
    table.add_column("items", justify="right", no_wrap=True)
    for task, found in scores.tasks.items():
        table.add_section()
        whole = found["all"]
        rows: list[tuple[str, str, str]] = [(task, "overall", "")]
        rows += [(escape(f"  {name}"), "categories", name) for name in whole.categories]
        rows += [(f"  {name}", "sizes", name) for name in whole.sizes]
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
    """One sheet for a task: some successes, then some failures with what is wrong.

    Args:
        items: of one task, all of them judged.
        results: what became of them.
        path: the image file to write.
    """
    chosen = [
        *_sample([item for item in items if results[item.name].ok]),
        *_sample([item for item in items if not results[item.name].ok]),
    ]
    pictures = [_picture(item, results) for item in chosen]
    captions = [_caption(item, results[item.name]) for item in chosen]
    return contact_sheet(pictures, captions, path, columns=COLUMNS, max_side=_MAX_SIDE)


def _sample(items: Sequence[Item]) -> list[Item]:
    """Up to `NUM_SHOWN` of some items, in their order; always the same."""
    indices = random.Random(0).sample(range(len(items)), min(NUM_SHOWN, len(items)))
    return [items[index] for index in sorted(indices)]


def _picture(item: Item, results: ResultsFile) -> Image.Image:
    """What was shown and what was made of it: side by side, or wide ones one above the other."""
    pictures = [render(scene) for scene in (*item.references, item.scene) if scene is not None]
    if results.picture_path(item.name).exists():
        pictures.append(open_image(results.picture_path(item.name)))
    if not pictures:  # small talk
        pictures.append(Image.new("RGB", (item.width, item.height), "white"))
    frame = _FRAMES[results[item.name].ok]
    pictures = [
        ImageOps.expand(ImageOps.scale(picture, _SCALE, _NEAREST), _FRAME_WIDTH, frame) for picture in pictures
    ]
    width, height = pictures[0].size
    across, down = (0, height + _GAP) if width > height else (width + _GAP, 0)
    steps = len(pictures) - 1
    both = Image.new("RGB", (width + steps * across, height + steps * down), "white")
    for index, picture in enumerate(pictures):
        both.paste(picture, (index * across, index * down))
    return both


def _caption(item: Item, result: Result) -> str:
    asked = item.chat["prompt"] if item.chat else "" if item.prompt is None else item.prompt.prompt
    if result.ok:
        said = [asked, result.answer]
    else:
        said = [asked, result.reason]  # which quotes the answer
    return ": ".join(["right" if result.ok else "wrong", " | ".join(part for part in said if part)]).removesuffix(": ")
