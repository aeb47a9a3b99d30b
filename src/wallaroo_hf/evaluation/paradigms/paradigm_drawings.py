"""A comparison of paradigms in two drawings: curves, and pictures of the same captions side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from ...files.whole import new_file
from ...pictures.opening import open_image
from ...training.reports import contact_sheet
from ..items import Item
from ..results import PICTURES
from .paradigm_results import ParadigmResults
from .paradigm_scoring import RIGHT

__all__ = ["draw_curves", "draw_pictures"]

_COLOURS = ("#2a78b5", "#d9822b", "#3c9d5d", "#9b59b6")
_SHOWN = 8  # captions
_ENLARGED, _FRAME, _GAP = 2, 2, 4
_RIGHT, _WRONG = (46, 160, 84), (208, 52, 44)


def draw_curves(results: ParadigmResults, path: Path) -> Path:
    """Draws how many drawings are right over seconds and over operations of training, a line for each seed.

    Args:
        results: what was found.
        path: the image file to write.

    Raises:
        ImportError: without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('Plots need matplotlib; run `pip install "wallaroo-hf[train]"`.') from error
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels: Any = figure.subplots(1, 2, sharey=True)
    for axes, key, words in zip(panels, ("seconds", "flops"), ("seconds of training", "operations of training")):
        for colour, (name, runs) in zip(_COLOURS, results.runs.items()):
            for number, run in enumerate(runs):
                found = [(0.0, 0.0), *((look[key], 100 * look[RIGHT]) for look in run["looks"])]
                label = results.families[name]["title"] if number == 0 else None
                axes.plot(*zip(*found), color=colour, marker="o", markersize=3, label=label)
        axes.set_xlabel(words)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylim(0, 100)
    panels[0].set_ylabel("drawings right, %")
    panels[0].legend(frameon=False)
    with new_file(path) as partial:
        figure.savefig(partial, dpi=140)
    return path


def draw_pictures(results: ParadigmResults, items: Sequence[Item], folder: Path) -> Path:
    """A sheet of captions, each with what every family drew with the first seed, framed by whether it is right.

    Args:
        results: what was found.
        items: captions; of each category the first ones are shown.
        folder: of the comparison.
    """
    by_category: dict[str, list[Item]] = {}
    for item in items:
        by_category.setdefault(item.category, []).append(item)
    rounds = range(max(map(len, by_category.values())))
    chosen = [own[turn] for turn in rounds for own in by_category.values() if turn < len(own)][:_SHOWN]
    strips = [_strip([_framed(item, folder / name / "seed-0") for name in results.runs]) for item in chosen]
    titles = " | ".join(family["title"] for family in results.families.values())
    captions = ["" if item.prompt is None else item.prompt.prompt for item in chosen]
    captions = [f"{caption} ({titles})" if number == 0 else caption for number, caption in enumerate(captions)]
    widest = max(strip.width for strip in strips)
    return contact_sheet(strips, captions, folder / "pictures.png", columns=2, max_side=widest)


def _framed(item: Item, run: Path) -> Image.Image:
    drawn = open_image(run / "scores" / PICTURES / f"{item.name}.png")
    frame = _RIGHT if item.judge(drawn) else _WRONG
    return ImageOps.expand(ImageOps.scale(drawn, _ENLARGED, Image.Resampling.NEAREST), _FRAME, frame)


def _strip(pictures: Sequence[Image.Image]) -> Image.Image:
    width, height = pictures[0].size
    strip = Image.new("RGB", (len(pictures) * (width + _GAP) - _GAP, height), "white")
    for number, picture in enumerate(pictures):
        strip.paste(picture, (number * (width + _GAP), 0))
    return strip
