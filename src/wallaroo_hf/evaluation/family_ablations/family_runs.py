"""`run_family_ablation`: every variant for every seed, each once, then the comparison."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..._version import __version__
from ...families.ablation_contract import FamilyAblation
from ...families.registry import Family
from ...scenes.dataset import DATA_VERSION
from ...scenes.splits import SPLITS
from ...training.devices import training_device
from ..identity import checkpoint_hash, versions
from ..items import Item, items_hash
from ..scene_reports import write_json
from .family_comparison import FamilyComparison
from .family_reports import write_pictures, write_reports
from .family_scoring import draw_items, judge_drawn
from .family_training import TrainingPlan, measure_step, train_variant
from .few_rows import LANGUAGE, few_items

__all__ = ["MANIFEST_FILE", "FamilySettings", "run_family_ablation"]

MANIFEST_FILE = "manifest.json"
_PICTURES = 12  # of each run, on its sheet
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class FamilySettings:
    """How large an ablation is.

    Attributes:
        variants: names; None = all.
        steps: of training, per variant and seed (a variant may be made to train longer); None = the family's.
        cpu_seconds: instead of steps, process seconds that training may take: each variant's seconds per step are
            measured once, and all of its seeds train the steps that fit.
        seeds: 0, 1, ... so many.
        batch_size: rows per step; None = the family's.
        rows: different rows to learn from; None = none comes twice.
        judged: pictures that each run draws.
        split: of the scenes, of what is drawn.
    """

    variants: tuple[str, ...] | None = None
    steps: int | None = None
    cpu_seconds: float | None = None
    seeds: int = 2
    batch_size: int | None = None
    rows: int | None = None
    judged: int = 240
    split: str = "test"

    def __post_init__(self) -> None:
        for name in ("steps", "cpu_seconds", "seeds", "batch_size", "rows"):
            value = getattr(self, name)
            if value is not None and not value >= 1:
                raise ValueError(f"`{name}` is {value}, but must be at least 1.")
        if self.judged < 2:
            raise ValueError(f"`judged` is {self.judged}, but must be at least 2: pictures are compared with others.")
        if self.steps is not None and self.cpu_seconds is not None:
            raise ValueError("Both a number of steps and CPU seconds were given; give one of them.")
        if self.split not in SPLITS:
            raise ValueError(f"`split` is {self.split!r}, but must be one of {', '.join(SPLITS)}.")


def run_family_ablation(
    family: Family,
    output: str | Path,
    base: str,
    settings: FamilySettings | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> FamilyComparison:
    """Trains and scores variants of a family's small model, and writes what came of it.

    What is finished is not done again: `runs/VARIANT-seed-N.json` is there when a variant is scored for a seed, and the
    same call goes on with the others, to the same results; a call with other variants, or more seeds, adds to them. The
    folder gets `manifest.json` (exact settings and versions), `results.json`, `comparison.md`, `comparison.png` and, of
    each run, `runs/VARIANT-seed-N.png` with its first pictures.

    Args:
        family: whose variants.
        output: folder.
        base: the checkpoint that all variants are built on.
        settings: which variants, and how much is trained and scored.
        device: where to compute; None = an accelerator if there is one.
        progress: called as `progress(what, done, total)`.

    Raises:
        ImportError: without what a family's models need, or matplotlib.
        ValueError: for a family without such variants, unknown ones, a base that they cannot be built on, and a folder with
            runs of other settings.
    """
    report = progress or (lambda *_: None)
    return _FamilyRun(family, Path(output), base, settings or FamilySettings(), device, report).run()


class _FamilyRun:
    def __init__(
        self,
        family: Family,
        output: Path,
        base: str,
        settings: FamilySettings,
        device: str | None,
        progress: Progress,
    ) -> None:
        self.ablation: FamilyAblation = family.resolve("ablation")
        self.family, self.output, self.settings, self.progress = family, output, settings, progress
        self.chosen = _choose(self.ablation, settings.variants)
        self.device = training_device(device)
        if settings.cpu_seconds is not None and self.device.type != "cpu":
            raise ValueError(
                f"CPU seconds say nothing of training on {self.device.type}; give a number of steps, or the device cpu."
            )
        self.batch_size = settings.batch_size or self.ablation.batch_size
        self.items = few_items(settings.judged, settings.split)
        self.parts = self.ablation.open(base, output)
        self.record = self._settings_record()

    def run(self) -> FamilyComparison:
        (self.output / "runs").mkdir(parents=True, exist_ok=True)
        todo = [(seed, name) for seed in range(self.settings.seeds) for name in self.chosen]
        for seed, name in todo:
            self._finished(name, seed)  # runs of other settings are refused before anything is trained
        self._write_manifest()
        done: dict[str, list[Mapping[str, Any]]] = {name: [] for name in self.chosen}
        for number, (seed, name) in enumerate(todo):
            self.progress("runs", number, len(todo))
            # looked at again: another process with the same folder may have finished it in the meantime
            done[name].append(self._finished(name, seed) or self._train_and_score(name, seed))
        self.progress("runs", len(todo), len(todo))
        categories = [item.category for item in self.items]
        comparison = FamilyComparison(self.ablation, self.family.title, self.record, categories, done)
        write_reports(comparison, self.output)
        return comparison

    # -------------------------------------------------------------------------------------------------------- records

    def _settings_record(self) -> dict[str, Any]:
        """What decides the result of a run, apart from variant and seed."""
        settings = asdict(self.settings)
        record = {name: settings[name] for name in ("cpu_seconds", "rows", "judged", "split")}
        if self.settings.cpu_seconds is None:
            record["steps"] = self.settings.steps or self.ablation.steps
        model, processor = self.ablation.start(self.parts, self.ablation.references[0], 0)
        return {
            **record,
            "batch_size": self.batch_size,
            "language": LANGUAGE,
            "items": items_hash(self.items),
            "family": self.family.title,
            "start": checkpoint_hash(model, processor),
            "wallaroo_hf": __version__,
            "scenes": DATA_VERSION,
            "device": self.device.type,
        }

    def _write_manifest(self) -> None:
        variants = {}
        for name in self.chosen:
            variant = self.ablation.variants[name]
            steps = self.record.get("steps", 1)
            stage = self.ablation.stage(name, max(1, round(steps * variant.length)), self.batch_size).to_dict()
            if "steps" not in self.record:
                stage.pop("max_steps")  # measured, see each run
            variants[name] = {**asdict(variant), "settings": self.ablation.describe(name), "stage": stage}
        manifest = {
            "settings": self.record,
            "seeds": self.settings.seeds,
            "variants": variants,
            "versions": versions(),
        }
        write_json(manifest, self.output / MANIFEST_FILE)

    def _path(self, name: str, seed: int) -> Path:
        return self.output / "runs" / f"{name}-seed-{seed}.json"

    def _finished(self, name: str, seed: int) -> Mapping[str, Any] | None:
        """The run of a variant for a seed if it is there already.

        Raises:
            ValueError: if it was made with other settings.
        """
        path = self._path(name, seed)
        if not path.exists():
            return None
        run: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        now = {**self.record, "variant": self.ablation.describe(name)}
        before = {**run["settings"], "variant": run["variant_settings"]}
        changed = [key for key in {**before, **now} if before.get(key) != json.loads(json.dumps(now.get(key)))]
        if changed:
            told = ", ".join(f"{key} {_brief(before.get(key))}, now {_brief(now.get(key))}" for key in changed[:3])
            raise ValueError(
                f"{path} was made with other settings ({told}); choose another --output, or the same settings."
            )
        return run

    # ----------------------------------------------------------------------------------------------------------- work

    def _train_and_score(self, name: str, seed: int) -> Mapping[str, Any]:
        plan = TrainingPlan(name, self._steps(name), self.batch_size, self.settings.rows, self.device)
        label = f"{name}, seed {seed}"
        trained = train_variant(
            self.ablation,
            self.parts,
            plan,
            seed,
            self.output,
            lambda done, total: self.progress(f"{label}: steps", done, total),
        )
        began = time.process_time()
        drawn = draw_items(
            self.ablation,
            trained.model,
            trained.processor,
            self.items,
            lambda done, total: self.progress(f"{label}: pictures", done, total),
        )
        values = judge_drawn(self.items, drawn)
        run = {
            "settings": self.record,
            "variant": name,
            "variant_settings": self.ablation.describe(name),
            "seed": seed,
            "steps": plan.steps,
            "values": values,
            "losses": trained.losses,
            "process_seconds": {
                "training": round(trained.process_seconds, 1),
                "scoring": round(time.process_time() - began, 1),
            },
            "machine": {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
            "versions": versions(),
        }
        shown: Sequence[Item] = self.items[:_PICTURES]
        write_pictures(trained.processor, shown, drawn, self._path(name, seed).with_suffix(".png"))
        write_json(run, self._path(name, seed))
        return run

    def _steps(self, name: str) -> int:
        """How many steps a variant trains: as asked for, or as many as fit, measured once for all of its seeds."""
        if self.settings.cpu_seconds is None:
            return max(1, round(self.record["steps"] * self.ablation.variants[name].length))
        path = self.output / "runs" / f"{name}-steps.json"
        if not path.exists():
            self.progress(f"{name}: measuring a step", 0, 1)
            plan = TrainingPlan(name, 1, self.batch_size, self.settings.rows, self.device)
            seconds = measure_step(self.ablation, self.parts, plan, self.output)
            steps = max(1, int(self.settings.cpu_seconds / seconds))
            write_json({"cpu_seconds": self.settings.cpu_seconds, "seconds_per_step": seconds, "steps": steps}, path)
            self.progress(f"{name}: measuring a step", 1, 1)
        measured = json.loads(path.read_text(encoding="utf-8"))
        if measured["cpu_seconds"] != self.settings.cpu_seconds:
            raise ValueError(
                f"{path} was measured for {measured['cpu_seconds']:g} CPU seconds, now {self.settings.cpu_seconds:g}; "
                "choose another --output."
            )
        return int(measured["steps"])


def _choose(ablation: FamilyAblation, names: tuple[str, ...] | None) -> list[str]:
    """Names of variants in the order of the family."""
    if names is None:
        return list(ablation.variants)
    unknown = [name for name in names if name not in ablation.variants]
    if unknown or not names:
        raise ValueError(
            f"There is no variant {unknown[0] if unknown else ''!r}; there are {', '.join(ablation.variants)}."
        )
    return [name for name in ablation.variants if name in names]


def _brief(value: Any) -> str:
    """A setting in a message; hashes are cut."""
    return value[:8] if isinstance(value, str) and len(value) == 64 else json.dumps(value, ensure_ascii=False)
