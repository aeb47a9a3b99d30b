"""Training one variant for one seed with the package's own trainer."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ...families.ablation_contract import FamilyAblation
from ...families.registry import kit_of
from ...training.arguments import WallarooTrainingArguments
from ...training.callbacks import StageCallback
from ...training.data.mixing import Source, TaskMixture
from ...training.muon import computes_in_bf16
from ...training.trainer import WallarooTrainer
from .few_rows import FewRows

__all__ = ["Trained", "TrainingPlan", "measure_step", "train_variant"]

_WARM_UP, _MEASURED = 3, 8  # steps
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class TrainingPlan:
    """How a variant is trained.

    Attributes:
        variant: its name.
        steps: optimizer steps.
        batch_size: rows of each.
        rows: different rows to learn from; None = none comes twice.
        device: where.
    """

    variant: str
    steps: int
    batch_size: int
    rows: int | None
    device: torch.device


@dataclass(frozen=True)
class Trained:
    """What came of it.

    Attributes:
        model: in evaluation mode, on its device.
        processor: its processor.
        process_seconds: of training alone.
        step_seconds: process seconds of each step.
        losses: the means of the last steps, by name.
    """

    model: Any
    processor: Any
    process_seconds: float
    step_seconds: list[float]
    losses: dict[str, float]


def train_variant(
    ablation: FamilyAblation, parts: Any, plan: TrainingPlan, seed: int, folder: Path, report: Report
) -> Trained:
    """Trains one variant; equal arguments give equal weights, and one seed the same rows in every variant.

    Args:
        ablation: whose variant it is.
        parts: what it is built on.
        plan: how it is trained.
        seed: of weights, rows and noise.
        folder: for temporary files.
        report: called with the steps done and their number.
    """
    model, processor = ablation.start(parts, plan.variant, seed)
    stage = ablation.stage(plan.variant, plan.steps, plan.batch_size)
    kit = kit_of(model)
    kit.prepare_for_stage(model, processor, stage)
    length = plan.steps * plan.batch_size
    rows = FewRows(min(plan.rows or length, length), seed)
    clock = _Steps(report)
    with tempfile.TemporaryDirectory(prefix=".training-", dir=folder) as scratch:
        arguments = WallarooTrainingArguments.for_stage(
            stage,
            scratch,
            plan.batch_size,
            use_muon=True,
            use_cpu=plan.device.type == "cpu",
            seed=seed,
            bf16=computes_in_bf16(plan.device),
            report_to=[],
            disable_tqdm=True,
            logging_steps=max(1, plan.steps // 10),
            save_strategy="no",
        )
        source = {"generation": [Source(rows, "generation")]}
        trainer = WallarooTrainer(
            model=model,
            args=arguments,
            train_dataset=TaskMixture(source, {"generation": 1}, seed, length, sorted_within=plan.batch_size),
            data_collator=kit.collator(processor, stage, seed=seed),
            processing_class=processor,
            callbacks=[StageCallback(stage), clock],
        )
        trainer.remove_callback(PrinterCallback)
        began = time.process_time()
        trainer.train()
        seconds = time.process_time() - began
    last: dict[str, Any] = next((entry for entry in reversed(trainer.state.log_history) if "loss" in entry), {})
    losses = {name: float(value) for name, value in last.items() if name.startswith("loss")}
    return Trained(model.eval().to(plan.device), processor, seconds, clock.step_seconds, losses)


def measure_step(ablation: FamilyAblation, parts: Any, plan: TrainingPlan, folder: Path) -> float:
    """Process seconds of a step of a variant: the median of a few, on weights that are thrown away.

    Args:
        ablation, parts, plan, folder: see [`train_variant`]; the plan's number of steps does not count.
    """
    plan = TrainingPlan(plan.variant, _WARM_UP + _MEASURED, plan.batch_size, plan.rows, plan.device)
    trained = train_variant(ablation, parts, plan, 0, folder, lambda done, total: None)
    return statistics.median(trained.step_seconds[_WARM_UP:])


class _Steps(TrainerCallback):
    """Tells how far training is, and keeps the time."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.step_seconds: list[float] = []
        self._last = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        self._last = time.process_time()
        return control

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        now = time.process_time()
        self.step_seconds.append(now - self._last)
        self._last = now
        self.report(state.global_step, state.max_steps)
        return control
