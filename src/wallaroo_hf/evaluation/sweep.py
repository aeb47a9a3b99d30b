"""`sweep_sampling`: guidance, temperature and top-k chosen on the validation split, never on the test prompts."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from ..processing.processor import WallarooProcessor
from .identity import checkpoint_hash
from .item_outputs import Subject, read_sampling
from .items import scene_items
from .scene_reports import write_json
from .scenes import MAX_NEW_TOKENS, Progress, check_tasks, judge_items
from .scores import Score

SWEEP_FILE = "sweep.json"
SPLIT = "validation"
TASKS = ("generation", "editing")
NUM_ITEMS = 216  # per task: six of each category, language and size; a third of it could not tell settings apart
GUIDANCE_SCALES = (1.0, 1.5, 2.0, 3.0)
GUIDANCE_MIN_PS = (0.0, 0.2)
TEMPERATURES = (0.6, 0.8, 1.0)
TOP_KS = (0,)


@dataclass(frozen=True)
class SweepEntry:
    """One setting and what came of it.

    Attributes:
        guidance_scale: see `generate`.
        temperature: likewise.
        top_k: likewise; 0 takes all codes.
        guidance_min_p: likewise; 0 guides to all codes.
        scores: by task, the mean over its categories.
    """

    guidance_scale: float
    temperature: float
    top_k: int
    guidance_min_p: float
    scores: dict[str, Score]

    @property
    def mean(self) -> float:
        """The mean over the tasks, in [0, 1]."""
        return sum(score.value for score in self.scores.values()) / len(self.scores)

    def generation_config(self) -> dict[str, float | int]:
        """The setting as entries of a generation config."""
        return {
            "image_guidance_scale": self.guidance_scale,
            "image_guidance_min_p": self.guidance_min_p,
            "image_temperature": self.temperature,
            "image_top_k": self.top_k,
        }

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
        for heading in ("guidance", "min-p", "temperature", "top-k", *self.entries[0].scores, "mean"):
            table.add_column(heading, justify="right")
        for entry in self.entries:
            numbers = (entry.guidance_scale, entry.guidance_min_p, entry.temperature)
            setting = (*(f"{number:g}" for number in numbers), str(entry.top_k or "all"))
            scores = (str(score) for score in entry.scores.values())
            table.add_row(*setting, *scores, f"{100 * entry.mean:.1f}", style="bold" if entry is self.best else None)
        return table


def sweep_sampling(
    model: Any,
    processor: WallarooProcessor,
    output_dir: str | Path,
    *,
    guidance_scales: Sequence[float] = GUIDANCE_SCALES,
    temperatures: Sequence[float] = TEMPERATURES,
    top_ks: Sequence[int] = TOP_KS,
    guidance_min_ps: Sequence[float] = GUIDANCE_MIN_PS,
    tasks: Sequence[str] = TASKS,
    num_items_per_task: int = NUM_ITEMS,
    seed: int = 0,
    batch_size: int = 16,
    resume: bool = True,
    progress: Callable[[int, int], None] | None = None,
    item_progress: Progress | None = None,
) -> Sweep:
    """Tries every combination of some sampling settings on the same validation items, with the same noise.

    Each setting is an evaluation in a folder of its own within `output_dir`, so a sweep that was interrupted goes on where
    it stopped; `sweep.json` is written when all are there.

    Args:
        model: see [`evaluate_scenes`].
        processor: likewise.
        output_dir: folder for the results.
        guidance_scales: to try.
        temperatures: to try.
        top_ks: to try; 0 takes all codes.
        guidance_min_ps: to try where there is guidance (of scales of 1 and below only the first is tried).
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
    grid = [
        setting
        for setting in itertools.product(guidance_scales, temperatures, top_ks, guidance_min_ps)
        if setting[0] > 1 or setting[3] == guidance_min_ps[0]  # else one and the same
    ]
    if not grid:
        raise ValueError(
            "There is nothing to try; give at least one guidance scale, one temperature, one top-k and one min-p."
        )
    samplings = [read_sampling(model, *setting) for setting in grid]
    items = {task: scene_items(task, num_items_per_task, SPLIT, seed) for task in TASKS if task in tasks}
    check_tasks(model, processor, items)
    origin = {"checkpoint": checkpoint_hash(model, processor), "split": SPLIT, "seed": seed}
    folder, entries = Path(output_dir), []
    (folder / SWEEP_FILE).unlink(missing_ok=True)
    for done, (setting, sampling) in enumerate(zip(grid, samplings)):
        if progress is not None:
            progress(done, len(grid))
        subject = Subject(model, processor, sampling, MAX_NEW_TOKENS)
        own_folder = folder / "guidance-{:g}_temperature-{:g}_top-k-{}_min-p-{:g}".format(*setting)
        scores = judge_items(subject, items, own_folder, origin, batch_size, resume, item_progress)
        overall = {task: groups["all"].overall for task, groups in scores.tasks.items()}
        entries.append(SweepEntry(*setting, overall))
    if progress is not None:
        progress(len(grid), len(grid))
    common = ("checkpoint", "split", "seed", "dtype", "num_items", "items", "wallaroo_hf", "scenes")
    sweep = Sweep({name: scores.settings[name] for name in common}, tuple(entries))
    write_json(sweep.to_dict(), folder / SWEEP_FILE)
    return sweep


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
