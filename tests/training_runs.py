"""Training runs of the tiny model, in processes of their own which can be killed, or work in pairs (training_pairs)."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from wallaroo_hf import WallarooForConditionalGeneration, WallarooProcessor
from wallaroo_hf.training.arguments import WallarooTrainingArguments
from wallaroo_hf.training.callbacks import StageCallback
from wallaroo_hf.training.checkpoints import find_last_complete_checkpoint
from wallaroo_hf.training.collator import Numbered, WallarooDataCollator
from wallaroo_hf.training.stages import stage
from wallaroo_hf.training.trainer import WallarooTrainer


class InTrainingOrder(Numbered):
    """Rows that are in the order of training already, as a mixture of tasks is."""

    in_training_order = True


def build_trainer(
    model_folder: Path, rows: list[dict[str, Any]], output_dir: Path, ordered: bool = True, **settings: Any
) -> WallarooTrainer:
    """A trainer of the model in a folder.

    Args:
        ordered: the rows are in the order of training; else they are shuffled.
        settings: of `WallarooTrainingArguments`.
    """
    defaults: dict[str, Any] = {
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
    }
    processor = WallarooProcessor.from_pretrained(model_folder)
    data = (InTrainingOrder if ordered else Numbered)(rows)
    return WallarooTrainer(
        model=WallarooForConditionalGeneration.from_pretrained(model_folder),
        args=WallarooTrainingArguments(output_dir=str(output_dir), **{**defaults, **settings}),
        train_dataset=data,
        eval_dataset=data,
        data_collator=WallarooDataCollator(processor, unconditional_rate=0.3),
        processing_class=processor,
        callbacks=[StageCallback(stage("4"), force=True)],
    )


def curve(trainer: WallarooTrainer) -> list[dict[str, float]]:
    """What was logged step by step."""
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def train_until_killed(
    model_folder: Path, rows: list[dict[str, Any]], output_dir: Path, kill_at: int | None, settings: dict[str, Any]
) -> None:
    """Trains on from the last complete checkpoint; at the end leaves the loss curve beside the run.

    Args:
        kill_at: the process kills itself when it looks at or changes files of the run for that time; None = never.
    """
    torch.set_num_threads(1)
    found = find_last_complete_checkpoint(output_dir)
    trainer = build_trainer(model_folder, rows, output_dir, **settings)
    if kill_at is not None:
        _die_at(kill_at, str(output_dir))
    trainer.train(resume_from_checkpoint=None if found is None else str(found))
    output_dir.with_suffix(".json").write_text(json.dumps(curve(trainer)), encoding="utf-8")


def _die_at(number: int, folder: str) -> None:
    """Has this process kill itself at its `number`-th file operation in a folder (Python's audit events)."""
    count = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if arguments and isinstance(arguments[0], str | os.PathLike) and str(arguments[0]).startswith(folder + os.sep):
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
