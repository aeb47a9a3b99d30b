"""Training one variant for one seed: a short stage 4 from the common base."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ...families.loading import load_model, reading_checkpoint
from ...families.precision import computes_in_bf16
from ...modeling.model import WallarooForConditionalGeneration
from ...processing.processor import WallarooProcessor
from ...training.arguments import WallarooTrainingArguments
from ...training.callbacks import StageCallback
from ...training.collator import WallarooDataCollator
from ...training.data.mixing import Source, TaskMixture
from ...training.preparation import add_editing_parts, prepare_for_stage
from ...training.stages import Stage, stage
from ...training.trainer import WallarooTrainer
from .data import SIZES, EncodedRows
from .variants import Variant

__all__ = ["TrainingPlan", "build_variant", "train_variant"]

TASK_RATIOS = {"edits": {"editing": 3, "generation": 1}, "sizes": {"generation": 1}}


@dataclass(frozen=True)
class TrainingPlan:
    """How every variant is trained.

    Attributes:
        steps: optimizer steps.
        batch_size: rows of each.
        learning_rate: the first one after a short warm-up; it falls to 0 at the end.
    """

    steps: int
    batch_size: int = 16
    learning_rate: float = 1.5e-3

    def stage(self, kind: str, variant: Variant) -> Stage:
        """Stage 4 at this size, with what the variant changes."""
        settings = {
            "learning_rate": self.learning_rate,
            "lr_scheduler_type": "linear",
            "warmup_steps": min(20, self.steps // 4),
            "max_steps": self.steps,
            "global_batch_size": self.batch_size,
            "task_ratio": TASK_RATIOS[kind],
            "buckets": SIZES,
            "indicator_sizes": sorted({edge for size in SIZES for edge in size}),
            "max_length": 768,
            "pixel_limits": {"shortest_edge": 32 * 32, "longest_edge": 128 * 128},
            "editing_init": "generation",
        }
        # the base may be of any stage: what it knows already is a part of the question
        return replace(stage("4").override({**settings, **variant.stage}), follows=None)


def build_variant(
    variant: Variant, base: str, chosen: Stage, check_weights: bool = True
) -> tuple[WallarooForConditionalGeneration, WallarooProcessor]:
    """The base as a variant arranges it, in float32, with new editing parts: copies of the generation parts.

    Args:
        base: folder of a checkpoint; editing parts that it has are not taken over.
        chosen: the stage to train.
        check_weights: whether to look for weights that are not finite.
    """
    model = load_model(variant.model_class, base, check_weights, dtype=torch.float32)
    with reading_checkpoint(base):
        processor = variant.processor_class.from_pretrained(base)
    had_editing = model.config.has_editing
    prepare_for_stage(model, processor, chosen)
    if had_editing:
        add_editing_parts(model, chosen.editing_init)
    if variant.arrange is not None:
        variant.arrange(processor)
    return model, processor


def train_variant(
    variant: Variant,
    kind: str,
    base: str,
    rows: Mapping[str, EncodedRows],
    plan: TrainingPlan,
    seed: int,
    folder: Path,
    device: torch.device,
    report: Callable[[int, int], None],
) -> tuple[WallarooForConditionalGeneration, WallarooProcessor]:
    """Trains one variant; equal arguments give equal weights, and one seed the same rows in every variant.

    Args:
        kind: of the ablation.
        rows: to learn from, by task.
        seed: of the order of rows, their templates and masks.
        folder: for temporary files.
        report: called with the steps done and their number.
    """
    chosen = plan.stage(kind, variant)
    model, processor = build_variant(variant, base, chosen, check_weights=False)  # whoever has many trained looks once
    if device.type == "cpu":
        model.set_attn_implementation("eager")  # the fastest there for short rows, as in `SceneRun`
    sources = {task: [Source(rows[task].rows, task)] for task in chosen.task_ratio}
    length = plan.steps * plan.batch_size
    with tempfile.TemporaryDirectory(prefix=".training-", dir=folder) as scratch:
        arguments = WallarooTrainingArguments.for_stage(
            chosen,
            scratch,
            plan.batch_size,
            use_muon=True,
            use_cpu=device.type == "cpu",
            seed=seed,
            bf16=computes_in_bf16(device),
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
            save_strategy="no",
        )
        trainer = WallarooTrainer(
            model=model,
            args=arguments,
            train_dataset=TaskMixture(sources, chosen.task_ratio, seed, length, sorted_within=plan.batch_size),
            data_collator=WallarooDataCollator.for_stage(processor, chosen, seed=seed),
            processing_class=processor,
            callbacks=[StageCallback(chosen), _Steps(report)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return model.eval().to(device), processor


class _Steps(TrainerCallback):
    """Tells how far training is."""

    def __init__(self, report: Callable[[int, int], None]) -> None:
        self.report = report

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        self.report(state.global_step, state.max_steps)
        return control
