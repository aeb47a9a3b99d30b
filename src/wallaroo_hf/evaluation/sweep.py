"""`sweep_sampling`: settings of drawing chosen on the validation split, never on the test prompts."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from ..families.abilities import Abilities
from ..families.contract import DrawingModel, DrawingProcessor
from ..families.registry import abilities_of
from ..families.settings import SettingsAsAttributes
from .drawing_settings import read_sampling
from .identity import checkpoint_hash
from .item_outputs import Subject
from .items import scene_items
from .scene_reports import write_json
from .scenes import MAX_NEW_TOKENS, Progress, check_tasks, judge_items
from .scores import Score

SWEEP_FILE = "sweep.json"
SPLIT = "validation"
TASKS = ("generation", "editing")
NUM_ITEMS = 216  # per task: six of each category, language and size; a third of it could not tell settings apart


@dataclass(frozen=True)
class SweepEntry(SettingsAsAttributes):
    """One combination of settings and what came of it.

    Attributes:
        settings: by name, in the order of the checkpoint's settings.
        scores: by task, the mean over its categories.
    """

    settings: Mapping[str, Any]
    scores: dict[str, Score]

    @property
    def mean(self) -> float:
        """The mean over the tasks, in [0, 1]."""
        return sum(score.value for score in self.scores.values()) / len(self.scores)

    def generation_config(self) -> dict[str, Any]:
        """The settings as entries of a generation config."""
        return {f"image_{name}": value for name, value in self.settings.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values."""
        scores = {task: asdict(score) for task, score in self.scores.items()}
        return {**self.generation_config(), "mean": round(self.mean, 6), "scores": scores}


@dataclass(frozen=True)
class Sweep:
    """What `sweep_sampling` found.

    Attributes:
        settings: which checkpoint was tried on what.
        entries: every setting, in the order of the grid.
    """

    settings: dict[str, Any]
    entries: tuple[SweepEntry, ...]

    @property
    def best(self) -> SweepEntry:
        """The setting with the highest mean; of equal ones the first."""
        return max(self.entries, key=lambda entry: entry.mean)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values, as in `sweep.json`; `choice` can be put into a `generation_config.json`."""
        return {
            "choice": self.best.generation_config(),
            "settings": self.settings,
            "entries": [entry.to_dict() for entry in self.entries],
        }

    def table(self) -> Table:
        """All settings with their scores; the best is bold."""
        table = Table(
            title=f"Sampling settings on the {SPLIT} split: percent judged right (95 % interval)",
            title_justify="left",
            box=box.SIMPLE_HEAD,
        )
        first = self.entries[0]
        for heading in (*map(_short, first.settings), *first.scores, "mean"):
            table.add_column(heading, justify="right")
        for entry in self.entries:
            setting = [
                "all" if name == "top_k" and value == 0 else _shown(value) for name, value in entry.settings.items()
            ]
            scores = (str(score) for score in entry.scores.values())
            table.add_row(*setting, *scores, f"{100 * entry.mean:.1f}", style="bold" if entry is self.best else None)
        return table


def sweep_sampling(
    model: DrawingModel,
    processor: DrawingProcessor,
    output_dir: str | Path,
    *,
    guidance_scales: Sequence[float] | None = None,
    temperatures: Sequence[float] | None = None,
    top_ks: Sequence[int] | None = None,
    guidance_min_ps: Sequence[float] | None = None,
    settings: Mapping[str, Sequence[Any]] | None = None,
    tasks: Sequence[str] = TASKS,
    num_items_per_task: int = NUM_ITEMS,
    seed: int = 0,
    batch_size: int = 16,
    resume: bool = True,
    progress: Callable[[int, int], None] | None = None,
    item_progress: Progress | None = None,
) -> Sweep:
    """Tries every combination of some settings on the same validation items, with the same noise.

    Each combination is an evaluation in a folder of its own within `output_dir`, so a sweep that was interrupted goes on
    where it stopped; `sweep.json` is written when all are there.

    Args:
        model: see [`evaluate_scenes`].
        processor: likewise.
        output_dir: folder for the results.
        guidance_scales: to try; default: what the checkpoint's family says is worth trying (Wallaroo 1, 1.5, 2 and 3).
        temperatures: likewise (Wallaroo 0.6, 0.8 and 1).
        top_ks: likewise; 0 takes all codes (Wallaroo 0).
        guidance_min_ps: likewise, where there is guidance: of scales of 1 and below only the first is tried (Wallaroo 0 and
            0.2).
        settings: values to try of other settings of the family, by name.
        tasks: "generation", "editing" or both.
        num_items_per_task: see [`evaluate_scenes`].
        seed: likewise.
        batch_size: likewise.
        resume: likewise.
        progress: called as `progress(done, total)` before every setting and at the end.
        item_progress: see `progress` of [`evaluate_scenes`].

    Raises:
        ValueError: see [`evaluate_scenes`]; also for tasks that do not sample codes, and for an empty grid.
    """
    if not tasks or not set(tasks) <= set(TASKS):
        raise ValueError(
            f"A sweep is about {' and '.join(TASKS)}, which sample codes, not {', '.join(tasks) or 'nothing'}."
        )
    named: dict[str, Sequence[Any] | None] = {"guidance_scale": guidance_scales, "temperature": temperatures}
    named |= {"top_k": top_ks, "guidance_min_p": guidance_min_ps}
    abilities = abilities_of(model, processor)
    grid = _grid(abilities, {**named, **(settings or {})})
    samplings = [read_sampling(abilities, setting) for setting in grid]
    items = {task: scene_items(task, num_items_per_task, SPLIT, seed) for task in TASKS if task in tasks}
    check_tasks(abilities, items)
    origin = {"checkpoint": checkpoint_hash(model, processor), "split": SPLIT, "seed": seed}
    order = [setting.name for setting in abilities.settings]
    folder, entries = Path(output_dir), []
    (folder / SWEEP_FILE).unlink(missing_ok=True)
    for done, (setting, sampling) in enumerate(zip(grid, samplings)):
        if progress is not None:
            progress(done, len(grid))
        subject = Subject(model, processor, sampling, MAX_NEW_TOKENS)
        own_folder = folder / "_".join(f"{_short(name)}-{_shown(value)}" for name, value in setting.items())
        scores = judge_items(subject, items, own_folder, origin, batch_size, resume, item_progress)
        overall = {task: groups["all"].overall for task, groups in scores.tasks.items()}
        entries.append(SweepEntry({name: setting[name] for name in order if name in setting}, overall))
    if progress is not None:
        progress(len(grid), len(grid))
    common = ("checkpoint", "split", "seed", "dtype", "num_items", "items", "wallaroo_hf", "scenes")
    sweep = Sweep({name: scores.settings[name] for name in common}, tuple(entries))
    write_json(sweep.to_dict(), folder / SWEEP_FILE)
    return sweep


def _grid(abilities: Abilities, given: Mapping[str, Sequence[Any] | None]) -> list[dict[str, Any]]:
    """Every combination of the values given, and of those that the family tries, in the order of records.

    Raises:
        ValueError: if there is none.
    """
    tried = {setting.name: setting.tried for setting in abilities.settings if setting.tried}
    chosen = tried | {name: tuple(values) for name, values in given.items() if values is not None}
    order = [*(name for name in abilities.own_settings() if name in chosen), *chosen]
    values = {name: chosen[name] for name in order}
    grid = [dict(zip(values, combination)) for combination in itertools.product(*values.values())] if values else []
    quiet = [setting.name for setting in abilities.settings if setting.needs_guidance and setting.name in values]
    grid = [
        one
        for one in grid
        if one.get("guidance_scale", 2) > 1 or all(one[name] == values[name][0] for name in quiet)  # else the same
    ]
    if not grid:
        raise ValueError(
            f"There is nothing to try; give at least one value of each of {', '.join(values) or 'some settings'}."
        )
    return grid


def _short(name: str) -> str:
    """A setting's name in tables and folders: guidance, min-p, top-k."""
    return name.removesuffix("_scale").removeprefix("guidance_").replace("_", "-")


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def save_choice(sweep: Sweep, folder: str | Path) -> None:
    """Writes the best setting into a checkpoint's `generation_config.json`, whose other entries stay.

    Raises:
        ValueError: if the folder has none.
    """
    path = Path(folder) / "generation_config.json"
    if not path.is_file():
        raise ValueError(f"'{folder}' has no generation_config.json; give a checkpoint's folder on this machine.")
    settings = json.loads(path.read_text(encoding="utf-8")) | sweep.best.generation_config()
    write_json(dict(sorted(settings.items())), path)
