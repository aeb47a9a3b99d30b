"""A comparison of paradigms for people: a table to read on a terminal, and a document with all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from ...files.whole import new_file
from ...scenes.caption_parts import FAILURES
from ..items import Item
from ..paired_runs import Estimate
from ..scene_reports import write_json
from .paradigm_drawings import draw_curves, draw_pictures
from .paradigm_results import GOALS, ParadigmResults
from .paradigm_scoring import FORGOTTEN

__all__ = ["RESULTS_FILE", "TABLE_FILE", "paradigms_table", "write_reports"]

RESULTS_FILE, TABLE_FILE, CURVES_FILE, PICTURES_FILE = "results.json", "paradigms.md", "curves.png", "pictures.png"
_TASKS = {"generation": "drawings right", "editing": "edits right", "understanding": "answers right"}
_SI = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
Row = list[str]


def write_reports(results: ParadigmResults, items: Sequence[Item], folder: Path) -> None:
    """Writes `results.json`, `paradigms.md`, `curves.png` and `pictures.png`.

    Args:
        results: what was found.
        items: captions, of which some are shown with what each family drew.
        folder: of the comparison.

    Raises:
        ImportError: without matplotlib.
    """
    write_json(results.to_dict(), folder / RESULTS_FILE)
    with new_file(folder / TABLE_FILE) as partial:
        partial.write_text(_document(results), encoding="utf-8")
    draw_curves(results, folder / CURVES_FILE)
    draw_pictures(results, items, folder)


def paradigms_table(results: ParadigmResults) -> Table:
    """What is right of each family, what it took and what it lost.

    Args:
        results: what was found.
    """
    table = Table(title=_title(results), title_justify="left", box=box.SIMPLE_HEAD)
    head = ["", *(family["title"] for family in results.families.values())]
    for number, name in enumerate(head):
        table.add_column(escape(name), justify="left" if number == 0 else "right")
    for row in [*_scores(results), *_costs(results)]:
        table.add_row(*map(escape, row))
    return table


# ----------------------------------------------------------------------------------------------------------------- rows


def _each(results: ParadigmResults, words: str, tell: Callable[[str], str]) -> Row:
    """A row with a cell for each family."""
    return [words, *(tell(name) for name in results.families)]


def _scores(results: ParadigmResults) -> list[Row]:
    rows = [
        _each(results, words, lambda name, task=task: _percent(results.mean(name, task)))  # type: ignore[misc]
        for task, words in _TASKS.items()
        if task in results.tasks
    ]
    if "understanding" in results.tasks:
        rows.append(
            _each(
                results,
                "answers forgotten",
                lambda name: _percent(results.mean(name, "understanding", FORGOTTEN)),
            )
        )
    return rows


def _inside(results: ParadigmResults, task: str) -> list[Row]:
    """The categories of a task."""
    return [
        _each(results, one, lambda name, one=one: _percent(results.mean(name, task, category=one)))  # type: ignore[misc]
        for one in results.categories.get(task, [])
    ]


def _failures(results: ParadigmResults) -> list[Row]:
    """What is wrong first, of all drawings."""
    return [
        _each(results, one, lambda name, one=one: _percent(results.mean(name, "generation", one)))  # type: ignore[misc]
        for one in FAILURES
    ]


def _costs(results: ParadigmResults) -> list[Row]:
    runs, families = results.runs, results.families
    told = results.to_dict()["families"]
    rows = [
        _each(results, "seconds of training", lambda name: _mean([run["seconds"] for run in runs[name]], ",.0f")),
        _each(results, "steps", lambda name: _mean([run["steps"] for run in runs[name]], ",.0f")),
        _each(results, "operations of training", lambda name: _si([run["flops"] for run in runs[name]])),
        _each(
            results,
            "drawings right at equal operations",
            lambda name: f"{100 * told[name]['drawing_at_least_flops']['value']:.1f}",
        ),
    ]
    for goal in GOALS:
        rows.append(
            _each(
                results,
                f"steps to {goal:g} of drawings",
                lambda name, goal=goal: _first(told[name]["reached"][str(goal)]["step"]),  # type: ignore[misc]
            )
        )
    costs = {name: [run["drawing_costs"] for run in found] for name, found in runs.items()}
    rows += [
        _each(results, "seconds a picture", lambda name: _mean([one["seconds"] for one in costs[name]], ".2f")),
        _each(results, "operations a picture", lambda name: _si([one["flops"] for one in costs[name]])),
        _each(
            results,
            "evaluations a picture",
            lambda name: ", ".join(f"{count} of the {part}" for part, count in costs[name][0]["forwards"].items()),
        ),
        _each(results, "parameters, trained", lambda name: _si([families[name]["parameters"]["trained"]])),
        _each(results, "parameters, frozen", lambda name: _si([families[name]["parameters"]["frozen"]])),
    ]
    return rows


def _percent(found: Estimate | None) -> str:
    """In percent: "41.2 (36–46)"."""
    if found is None:
        return "–"
    return f"{100 * found.value:.1f} ({100 * found.low:.0f}–{100 * found.high:.0f})"


def _mean(numbers: Sequence[float], form: str) -> str:
    return format(sum(numbers) / len(numbers), form)


def _si(numbers: Sequence[float]) -> str:
    """The mean with a prefix: "4.2 T"."""
    value = sum(numbers) / len(numbers)
    for size, prefix in _SI:
        if value >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.3g}"


def _first(steps: Sequence[float | None]) -> str:
    """When seeds were there first: "1,200 and never"."""
    return " and ".join("never" if step is None else f"{step:,.0f}" for step in steps)


# ------------------------------------------------------------------------------------------------------------- document


def _title(results: ParadigmResults) -> str:
    seeds, settings = results.num_seeds, results.settings
    clock = "CPU seconds" if settings["device"] == "cpu" else "seconds on the accelerator"
    return (
        f"{len(results.families)} ways to unify: {settings['budget']:,.0f} {clock} of training each, "
        f"{seeds} {'seed' if seeds == 1 else 'seeds'}; percent, with 95 % intervals"
    )


def _document(results: ParadigmResults) -> str:
    head = ["", *(family["title"] for family in results.families.values())]
    differences = [
        [
            f"{results.families[name]['title']} over {results.families[other]['title']}",
            *(_points(results, name, other, task) for task in _TASKS),
        ]
        for name in results.families
        for other in results.families
        if name != other
    ]
    base = "was not asked" if results.base is None else f"answers {100 * results.base:.1f} % rightly"
    agree = "agree" if results.parameters_agree else "do NOT agree"
    parts = [
        f"# {_title(results)}",
        f"All grow from one language model, which {base} before. Numbers of parameters, image codecs left out, {agree} to "
        "within 10 %. Intervals: seeds and, within categories, items drawn anew, both at once.",
        _markdown(head, _scores(results)),
        *(
            _headed(f"## {words.capitalize()}, by category", head, _inside(results, task))
            for task, words in _TASKS.items()
        ),
        _headed("## The first thing that is wrong, of all drawings", head, _failures(results)),
        _headed("## Differences, in points", ["", *_TASKS.values()], differences),
        _headed("## What it took", head, _costs(results)),
        "## What they are\n\n"
        + "\n".join(
            f"- **{family['title']}**: {family['words']}. Taken: {family['taken']}."
            for family in results.families.values()
        ),
        "![Drawings right while they are trained](curves.png)\n\n![Drawings of the same captions](pictures.png)",
        "`manifest.json` has all settings, `results.json` all numbers; `wallaroo evaluate paradigms --verify` looks "
        "whether the files are still those that were judged.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _points(results: ParadigmResults, name: str, other: str, task: str) -> str:
    """In points: "+5.2 (+1.0 to +9.4)"."""
    found: Any = results.difference(name, other, task)
    return "–" if found is None else f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def _headed(heading: str, head: Sequence[str], rows: Sequence[Row]) -> str:
    return f"{heading}\n\n{_markdown(head, rows)}" if rows else ""


def _markdown(head: Sequence[str], rows: Sequence[Row]) -> str:
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
