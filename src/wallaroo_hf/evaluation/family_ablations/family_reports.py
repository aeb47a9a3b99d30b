"""A comparison for people: a table to read on a terminal or in Markdown, a drawing of it, and sheets of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich import box
from rich.markup import escape
from rich.table import Table

from ...files.whole import new_file
from ...scenes.caption_parts import PARTS
from ...scenes.captions import CAPTION_CATEGORIES
from ...training.reports import contact_sheet
from ..items import Item
from ..scene_reports import write_json
from .family_comparison import Estimate, FamilyComparison
from .family_scoring import RIGHT, Drawn

__all__ = ["claims_table", "comparison_table", "plot", "write_pictures", "write_reports"]

RESULTS_FILE, TABLE_FILE, PLOT_FILE = "results.json", "comparison.md", "comparison.png"
_ENLARGED = 2  # pictures on sheets, so that captions have room
_GAP = 4  # pixels between scales
_COLUMNS = 3


def write_reports(comparison: FamilyComparison, folder: Path) -> None:
    """Writes `results.json`, `comparison.md` and `comparison.png`.

    Args:
        comparison: what was found.
        folder: where.

    Raises:
        ImportError: without matplotlib.
    """
    write_json(comparison.to_dict(), folder / RESULTS_FILE)
    with new_file(folder / TABLE_FILE) as partial:
        partial.write_text(_document(comparison), encoding="utf-8")
    plot(comparison, folder / PLOT_FILE)


def write_pictures(processor: Any, items: Sequence[Item], drawn: Drawn, path: Path) -> Path:
    """A sheet of the first pictures, each with its coarser ones to the left.

    Args:
        processor: the model's.
        items: those shown, the first ones that were drawn.
        drawn: pictures of all items.
        path: the image file to write.
    """
    shown, captions = [], []
    for item, picture, scales in zip(items, drawn.pictures, drawn.scales):
        size = (picture.width * _ENLARGED, picture.height * _ENLARGED)
        own = [*processor.pictures(scales[:-1]), picture]
        strip = Image.new("RGB", (len(own) * (size[0] + _GAP) - _GAP, size[1]), "white")
        for number, one in enumerate(own):
            strip.paste(one.resize(size, Image.Resampling.NEAREST), (number * (size[0] + _GAP), 0))
        verdict = item.judge(picture)
        asked = "" if item.prompt is None else item.prompt.prompt
        shown.append(strip)
        captions.append(
            f"{'right' if verdict else 'wrong'}: {asked}" + (f" | {verdict.reason}" if verdict.reason else "")
        )
    return contact_sheet(shown, captions, path, columns=_COLUMNS, max_side=max(strip.width for strip in shown))


# ------------------------------------------------------------------------------------------------------------- tables


def _head(comparison: FamilyComparison) -> list[str]:
    references = comparison.references
    coarse = [name for name in comparison.metrics if name.startswith(("agreement", "difference"))]
    return [
        *("variant", "steps", "CPU s", RIGHT),
        *(f"{RIGHT} against {name}" for name in references),
        *CAPTION_CATEGORIES,
        *PARTS,
        *coarse,
    ]


def _rows(comparison: FamilyComparison) -> list[list[str]]:
    rows = []
    for name, runs in comparison.runs.items():
        seconds = [run["process_seconds"]["training"] for run in runs]
        row = [
            name,
            str(runs[0]["steps"]),
            f"{sum(seconds) / len(seconds):.0f}",
            _percent(comparison.mean(name, RIGHT)),
        ]
        for other in comparison.references:
            row.append("" if other == name else _signed(comparison.difference(name, other, RIGHT)))
        row += [_percent(comparison.mean(name, RIGHT, one), short=True) for one in CAPTION_CATEGORIES]
        row += [_percent(comparison.mean(name, one), short=True) for one in PARTS]
        for metric in _head(comparison)[len(row) :]:
            found = comparison.mean(name, metric)
            is_share = metric.startswith("agreement")
            row.append(_percent(found, short=True) if is_share else "" if found is None else f"{found.value:.1f}")
        rows.append(row)
    return rows


def _percent(found: Estimate | None, short: bool = False) -> str:
    """In percent: "41.2 (36–46)", or "41"."""
    if found is None:
        return ""
    if short:
        return f"{100 * found.value:.0f}"
    return f"{100 * found.value:.1f} ({100 * found.low:.0f}–{100 * found.high:.0f})"


def _signed(found: Estimate | None) -> str:
    """In points: "+5.2 (+1.0 to +9.4; seeds +4.0, +6.4)"."""
    if found is None:
        return ""
    seeds = ", ".join(f"{100 * one:+.1f}" for one in found.by_seed)
    return f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f}; seeds {seeds})"


def _claims(comparison: FamilyComparison) -> list[list[str]]:
    rows = []
    for claim in comparison.ablation.claims:
        verdict = comparison.verdict(claim)
        found = None if verdict == "not run" else comparison.difference(claim.better, claim.worse, RIGHT)
        rows.append([claim.words, f"{claim.better} > {claim.worse}", _signed(found), verdict])
    return rows


_CLAIMS_HEAD = ["claim", "it says", "found, in points", "verdict"]


def _title(comparison: FamilyComparison) -> str:
    judged, seeds = comparison.settings["judged"], comparison.num_seeds
    return (
        f"{comparison.title}: percent judged right of {judged} pictures of each of {seeds} "
        f"{'seed' if seeds == 1 else 'seeds'}, split {comparison.settings['split']}"
    )


def comparison_table(comparison: FamilyComparison) -> Table:
    """A row per variant: what is right, and how far that is from the references.

    Args:
        comparison: what was found.
    """
    return _table(_title(comparison), _head(comparison)[: 4 + len(comparison.references)], _rows(comparison))


def claims_table(comparison: FamilyComparison) -> Table:
    """A row per claim.

    Args:
        comparison: what was found.
    """
    return _table("What that says", _CLAIMS_HEAD, _claims(comparison))


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for number, name in enumerate(head):
        table.add_column(name, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row[: len(head)]))
    return table


def _document(comparison: FamilyComparison) -> str:
    """The same in Markdown, with all columns."""
    settings = ", ".join(
        f"{key} {value}" for key, value in comparison.settings.items() if key not in ("items", "start")
    )
    words = [f"- `{name}` ({one.origin}): {one.words}" for name, one in comparison.ablation.variants.items()]
    parts = [
        f"# {comparison.title}: {comparison.ablation.question}",
        f"{_title(comparison)}. In brackets 95 % intervals: seeds and, within categories, pictures drawn anew, both at "
        "once, and the same for both sides of a difference; then the difference of each seed.",
        _markdown(_head(comparison), _rows(comparison)),
        "## Claims",
        _markdown(_CLAIMS_HEAD, _claims(comparison)),
        "## Variants",
        "\n".join(words),
        f"Settings: {settings}. `manifest.json` has all of them.",
    ]
    return "\n\n".join(parts) + "\n"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# -------------------------------------------------------------------------------------------------------- the drawing


def plot(comparison: FamilyComparison, path: Path) -> Path:
    """Draws what is right of each variant, whole and by part: bars with 95 % intervals, and seeds as dots.

    Args:
        comparison: what was found.
        path: the image file to write.

    Raises:
        ImportError: without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('Plots need matplotlib; run `pip install "wallaroo-hf[train]"`.') from error
    metrics = [RIGHT, *PARTS, *(name for name in comparison.metrics if name.startswith("agreement"))]
    width = max(3.2, 0.55 * len(comparison.runs) + 1)
    columns = min(3, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = Figure(figsize=(width * columns, 2.9 * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{comparison.title}: {comparison.ablation.question}")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, metric in zip(panels, metrics):
        _draw_panel(axes, comparison, metric)
    for axes in panels[len(metrics) :]:
        axes.set_visible(False)
    with new_file(path) as partial:
        figure.savefig(partial, dpi=140)
    return path


def _draw_panel(axes: Any, comparison: FamilyComparison, metric: str) -> None:
    for column, name in enumerate(comparison.runs):
        found = comparison.mean(name, metric)
        if found is None:
            continue
        colour = "#2a78b5" if name in comparison.references else "#d9822b"
        axes.bar(column, 100 * found.value, width=0.6, color=colour, alpha=0.75)
        spread = [[100 * max(0.0, found.value - found.low)], [100 * max(0.0, found.high - found.value)]]
        axes.errorbar(column, 100 * found.value, yerr=spread, color="0.2", capsize=3, linewidth=1.2)
        axes.plot([column] * len(found.by_seed), [100 * one for one in found.by_seed], "o", color="0.15", markersize=3)
    if metric.startswith("agreement"):
        axes.axhline(50, color="0.5", linestyle=":")  # chance
    axes.set_title(f"{metric}, %", fontsize=8.5)
    axes.set_xticks(range(len(comparison.runs)), list(comparison.runs), rotation=60, fontsize=7.5)
    axes.set_ylim(0, 100)
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
