"""How the toy family (tests/toy_family.py) is trained: one part of the loss, one stage, no adapters, no encoding ahead."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from toy_family import colour_of
from wallaroo_hf.families.training_stages import TrainingStage, check_order
from wallaroo_hf.training.data.training_rows import RowError, row_name, row_task
from wallaroo_hf.training.pictures import open_picture

TASKS = ("understanding", "generation")


@dataclass(frozen=True)
class ToyStage(TrainingStage):
    """All of it.

    Attributes:
        strength_rate: the learning rate of `strength`; 0 = as all others.
    """

    name: str = "1"
    follows: tuple[str, ...] | None = None
    trains: tuple[str, ...] = ("strength",)
    learning_rate: float = 0.1
    warmup_steps: int = 0
    max_steps: int = 3
    global_batch_size: int = 2
    task_ratio: Mapping[str, float] = field(default_factory=lambda: {"generation": 1})
    lr_scheduler_type: str = "constant"
    max_length: int = 200
    loss_weights: Mapping[str, float] = field(default_factory=dict)
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    adam_epsilon: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    bf16: bool = False
    strength_rate: float = 0.0

    TASKS: ClassVar[tuple[str, ...]] = TASKS

    def __post_init__(self) -> None:
        self.check()


class ToyCollator:
    """Rows to colours: the one that is asked for, and the one to learn."""

    def __init__(self, processor: Any, max_length: int, seed: int = 0, on_error: str = "raise") -> None:
        self.processor, self.max_length, self.seed, self.on_error = processor, max_length, seed, on_error

    def measure(self, row: Mapping[str, Any]) -> int:
        """Its tokens."""
        return self._encode(row)["input_ids"].shape[1]

    def _encode(self, row: Mapping[str, Any]) -> Any:
        words = [message["content"] for message in row["messages"]]
        asked, answered = (one if isinstance(one, str) else one[-1].get("text", "") for one in words[-2:])
        batch = self.processor(text=asked, height=row.get("height"), width=row.get("width"))
        target = torch.tensor(colour_of(answered or ""))
        if row_task(row) == "generation":
            pixels = np.asarray(open_picture(row["images"][-1]), dtype=np.float32)
            target = torch.from_numpy(pixels).mean(dim=(0, 1)) / 127.5 - 1
        batch["targets"], batch["learns"] = target[None], torch.ones(1)
        if batch["input_ids"].shape[1] > self.max_length:
            raise RowError(f"Row {row_name(row)} has more than {self.max_length} tokens.", "too_long")
        return batch

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A batch."""
        encoded = [self._encode(row) for row in rows]
        own = {name: torch.cat([batch.pop(name) for batch in encoded]) for name in ("targets", "learns")}
        return {**self.processor.collate(encoded), **own, "row_names": [row_name(row) for row in rows]}


class ToyKit:
    """See [`wallaroo_hf.families.training_kit.TrainingKit`]."""

    tasks = TASKS
    options: frozenset[str] = frozenset()
    frozen_parts: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    token_parts: tuple[str, ...] = ()

    def stages(self) -> Mapping[str, Callable[[], ToyStage]]:
        """One."""
        return {"1": ToyStage}

    def fine_tuning(self, folder: Any, tasks: Mapping[str, int], lora: bool) -> ToyStage:
        """The same for any data."""
        return ToyStage(task_ratio=dict(tasks))

    def prepare_processor(self, processor: Any, config: Any, stage: ToyStage, force: bool = False) -> None:
        """Nothing changes."""
        check_order(getattr(config, "stage", None), stage, force)

    def prepare_for_stage(self, model: Any, processor: Any, stage: ToyStage, force: bool = False) -> None:
        """Nothing changes."""
        self.prepare_processor(processor, model.config, stage, force)

    def check_model(self, model: Any, stage: ToyStage) -> None:
        """Any will do."""

    def check_parts(self, model: Any, stage: ToyStage) -> None:
        """What it trains must be there."""
        if not any(self.is_trained(stage, name) for name, _ in model.named_parameters()):
            raise ValueError(f"Stage {stage.name} trains {', '.join(stage.trains)}, but the model has strength.")

    def is_trained(self, stage: ToyStage, name: str) -> bool:
        """By beginnings."""
        return name.startswith(stage.trains)

    def parameter_groups(self, model: Any, stage: ToyStage) -> list[dict[str, Any]]:
        """Its one parameter, where the stage has a rate for it."""
        return [{"params": [model.strength], "lr": stage.strength_rate}] if stage.strength_rate else []

    def agree(self, model: Any, processor: Any) -> None:
        """Nothing can change."""

    def loss_names(self, config: Any) -> tuple[str, ...]:
        """One."""
        return ("colour",)

    def total_loss(self, losses: Mapping[str, Any], weights: Mapping[str, float] | None, config: Any) -> Any:
        """One."""
        return sum(losses.values(), torch.tensor(0.0))

    def guesses(self, config: Any) -> None:
        """No codes."""

    def count(self, batch: Mapping[str, Any], config: Any) -> torch.Tensor:
        """Rows."""
        return batch["learns"].sum()[None]

    def denominators(self, counts: torch.Tensor, config: Any) -> torch.Tensor:
        """Its one part has one mean."""
        return counts

    def collator(self, processor: Any, stage: ToyStage, **options: Any) -> ToyCollator:
        """See [`ToyCollator`]."""
        return ToyCollator(processor, stage.max_length, **options)

    def prepare(self, model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """There is no codec."""
        return dict(inputs)

    def keep_rows(self, inputs: Mapping[str, Any], count: int) -> dict[str, Any]:
        """The others weigh nothing."""
        learns = inputs["learns"] * (torch.arange(len(inputs["learns"])) < count)
        return {**inputs, "learns": learns}

    def arrange(self, model: Any, inputs: Mapping[str, Any], every_part: bool, padding_free: bool) -> dict[str, Any]:
        """As they are."""
        return dict(inputs)


KIT = ToyKit()
