"""`run_ablation`: every variant for every seed, each once, then the comparison."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import WeakFileLock

from ..._version import __version__
from ...families.loading import load_model, reading_checkpoint
from ...families.registry import find_family
from ...files.built_in import default_checkpoint
from ...modeling.configuration import WallarooConfig
from ...modeling.model import WallarooForConditionalGeneration
from ...processing.processor import WallarooProcessor
from ...scenes.dataset import DATA_VERSION
from ..identity import checkpoint_hash
from ..scene_reports import write_json
from .comparison import Comparison
from .data import SIZES, TRAIN_SEED, VALIDATION_SEED, EncodedRows, encoded_lessons
from .scoring import score_drawings, score_edits, score_lines, share_right
from .tokenizers import score_tokenizer, train_tokenizer_variant
from .training import TrainingPlan, train_variant
from .variants import Ablation, Variant, find_ablation

__all__ = ["RESULTS_FILE", "AblationSettings", "check_base", "run_ablation"]

RESULTS_FILE = "results.json"
DEFAULT_STEPS = {"edits": 900, "sizes": 900, "tokenizer": 600}

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class AblationSettings:
    """How large an ablation is.

    Attributes:
        steps: of training, per variant and seed; None = `DEFAULT_STEPS`.
        seeds: 0, 1, … so many.
        batch_size: rows per step.
        rows: different rows of each task to learn from.
        validation_rows: of each task, whose losses are taken.
        judged: of those, how many are drawn and judged.
    """

    steps: int | None = None
    seeds: int = 3
    batch_size: int = 16
    rows: int = 4096
    validation_rows: int = 384
    judged: int = 96

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and value < 1:
                raise ValueError(f"`{name}` is {value}, but must be at least 1.")
        if self.judged > self.validation_rows:
            raise ValueError(
                f"{self.judged} rows are to be judged, but there are {self.validation_rows} validation rows; judge fewer."
            )


def check_base(base: str | Path) -> None:
    """Refuses a checkpoint that ablations cannot start from.

    Args:
        base: its folder, or a Hub id.

    Raises:
        ValueError: if there is none, or one of another family.
    """
    family = find_family(base)
    if family.model_type != WallarooConfig.model_type:
        raise ValueError(
            f"The ablations are those of Wallaroo's paper and train Wallaroo checkpoints only, but '{base}' is a "
            f"{family.title} checkpoint; give a Wallaroo checkpoint as --base."
        )


def run_ablation(
    name: str,
    output: str | Path,
    base: str | None = None,
    settings: AblationSettings | None = None,
    device: str | None = None,
    progress: Progress | None = None,
    check_weights: bool = True,
) -> Comparison:
    """Trains and scores the variants of an ablation, and writes what came of it.

    What is finished is not done again: `runs/VARIANT-seed-N.json` is there when a variant is scored for a seed, and the
    same call goes on with the others, to the same results. Several ablations may share a folder, even at the same time;
    they then share rows and the runs of the released arrangement.

    Args:
        name: one of `ABLATIONS`.
        output: folder; gets `NAME/results.json`. ([`Comparison.plot`] plots what is in it.)
        base: folder of the checkpoint that all variants start from; default the built-in one. The ablation `tokenizer`
            starts from nothing.
        settings: how much is trained and scored.
        device: where to compute; None = an accelerator if there is one.
        progress: called as `progress(what, done, total)`.
        check_weights: whether to look for weights that are not finite in the base.

    Raises:
        ValueError: for an unknown name, a base that is damaged or of another family, and a folder with runs of other
            settings or another base.
    """
    ablation = find_ablation(name)
    if base is not None:
        check_base(base)
    report = progress or (lambda *_: None)
    return _Run(ablation, Path(output), base, settings or AblationSettings(), device, report, check_weights).run()


class _Run:
    def __init__(
        self,
        ablation: Ablation,
        output: Path,
        base: str | None,
        settings: AblationSettings,
        device: str | None,
        progress: Progress,
        check_weights: bool,
    ) -> None:
        self.ablation, self.output, self.settings, self.progress = ablation, output, settings, progress
        self.base, self.check_weights = base or default_checkpoint(), check_weights
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        self.device = torch.device(device or accelerator or "cpu")
        self.steps = settings.steps or DEFAULT_STEPS[ablation.kind]
        self._rows: dict[str, EncodedRows] = {}
        self.record = self._settings_record()

    def run(self) -> Comparison:
        (self.output / "runs").mkdir(parents=True, exist_ok=True)
        todo = [(seed, v) for seed in range(self.settings.seeds) for v in self.ablation.variants]
        for seed, variant in todo:
            self._finished(variant, seed)  # runs of other settings are refused before anything is trained
        done = {}
        for number, (seed, variant) in enumerate(todo):
            self.progress(f"{self.ablation.name}: variants", number, len(todo))
            # looked at again: another ablation of the same folder may have finished it in the meantime
            done[variant.key, seed] = self._finished(variant, seed) or self._train_and_score(variant, seed)
        self.progress(f"{self.ablation.name}: variants", len(todo), len(todo))
        by_seed = {
            variant.name: [done[variant.key, seed] for seed in range(self.settings.seeds)]
            for variant in self.ablation.variants
        }
        comparison = Comparison(
            self.ablation,
            self.record | {"seeds": self.settings.seeds},
            {
                name: {metric.name: [run["scores"][metric.name] for run in runs] for metric in self.ablation.metrics}
                for name, runs in by_seed.items()
            },
            {name: [run["process_seconds"] for run in runs] for name, runs in by_seed.items()},
        )
        write_json(comparison.to_dict(), self.output / self.ablation.name / RESULTS_FILE)
        return comparison

    # -------------------------------------------------------------------------------------------------------- records

    def _settings_record(self) -> dict[str, Any]:
        """What decides the result of a run, apart from variant and seed."""
        record = asdict(self.settings) | {"steps": self.steps, "kind": self.ablation.kind}
        record |= {"wallaroo_hf": __version__, "scenes": DATA_VERSION, "device": self.device.type}
        del record["seeds"]
        if self.ablation.kind == "tokenizer":
            return {key: value for key, value in record.items() if key not in ("rows", "batch_size")}
        model, processor = self._load_base()
        return record | {"base": checkpoint_hash(model, processor)}

    def _load_base(self) -> tuple[WallarooForConditionalGeneration, WallarooProcessor]:
        model = load_model(WallarooForConditionalGeneration, self.base, self.check_weights, dtype=torch.float32)
        with reading_checkpoint(self.base):
            return model.eval(), WallarooProcessor.from_pretrained(self.base)

    def _path(self, variant: Variant, seed: int) -> Path:
        return self.output / "runs" / f"{variant.key}-seed-{seed}.json"

    def _finished(self, variant: Variant, seed: int) -> Mapping[str, Any] | None:
        """The run of a variant for a seed if it is there already.

        Raises:
            ValueError: if it was made with other settings.
        """
        path = self._path(variant, seed)
        if not path.exists():
            return None
        run = json.loads(path.read_text(encoding="utf-8"))
        before = run["settings"]
        changed = sorted(key for key in {**before, **self.record} if before.get(key) != self.record.get(key))
        if changed:
            told = ", ".join(f"{key} {before.get(key)}, now {self.record.get(key)}" for key in changed[:3])
            raise ValueError(
                f"{path} was made with other settings ({told}); choose another --output, or the same settings."
            )
        return run

    # ----------------------------------------------------------------------------------------------------------- work

    def _train_and_score(self, variant: Variant, seed: int) -> dict[str, Any]:
        rows = {} if self.ablation.kind == "tokenizer" else self._encoded()
        began = time.process_time()
        if self.ablation.kind == "tokenizer":
            scores = self._score_tokenizer(variant, seed)
        else:
            scores = self._score_model(variant, seed, rows)
        run = {
            "settings": self.record,
            "variant": variant.key,
            "seed": seed,
            "scores": scores,
            "process_seconds": round(time.process_time() - began, 1),
        }
        write_json(run, self._path(variant, seed))
        return run

    def _report(self, variant: Variant, seed: int) -> Callable[[int, int], None]:
        return lambda done, total: self.progress(f"{variant.name}, seed {seed}: steps", done, total)

    def _score_tokenizer(self, variant: Variant, seed: int) -> dict[str, float]:
        folder = self.output / "tokenizers" / f"{variant.key}-{self.steps}-seed-{seed}"
        vq_model = train_tokenizer_variant(
            variant.pixels_per_code, self.steps, seed, folder, self.device, self._report(variant, seed)
        )
        return score_tokenizer(vq_model, self.settings.validation_rows)

    def _score_model(self, variant: Variant, seed: int, rows: Mapping[str, EncodedRows]) -> dict[str, float]:
        plan = TrainingPlan(self.steps, self.settings.batch_size)
        model, processor = train_variant(
            variant,
            self.ablation.kind,
            self.base,
            {task: rows[task] for task in ("editing", "generation") if task in rows},
            plan,
            seed,
            self.output,
            self.device,
            self._report(variant, seed),
        )
        drawings, judged = rows["generation validation"], self.settings.judged
        scores = score_drawings(model, processor, drawings)
        scores["drawings_right"] = share_right(model, processor, drawings, judged)
        if self.ablation.kind == "sizes":
            return scores | score_lines(model, processor, drawings)
        edits = rows["editing validation"]
        scores |= score_edits(model, processor, edits)
        return scores | {"edits_right": share_right(model, processor, edits, judged)}

    def _encoded(self) -> dict[str, EncodedRows]:
        """Rows to learn from and to score, by task; encoded with the base's image tokenizer, once for all variants."""
        if self._rows:
            return self._rows
        model, processor = self._load_base()
        processor.line_breaks, processor.buckets = True, list(SIZES)
        vq_model = model.vq_model.to(self.device)
        sizes = self.ablation.kind == "sizes"
        tasks = {"generation": "sizes"} if sizes else {"editing": "editing", "generation": "generation"}
        parts = (("", self.settings.rows, TRAIN_SEED), (" validation", self.settings.validation_rows, VALIDATION_SEED))
        folder = self.output / "rows"
        folder.mkdir(exist_ok=True)
        with WeakFileLock(folder / ".lock"):  # another ablation of the same folder waits here and reads them
            for task, kind in tasks.items():
                for suffix, count, seed in parts:
                    report = functools.partial(self.progress, f"encoding {kind}{suffix}")
                    self._rows[task + suffix] = encoded_lessons(kind, count, seed, vq_model, processor, folder, report)
        return self._rows
