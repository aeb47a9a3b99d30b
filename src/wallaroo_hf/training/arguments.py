"""`WallarooTrainingArguments`: transformers' arguments with this model's defaults, and what is ours."""

import dataclasses
import os
from typing import Any

from transformers import TrainingArguments

from ..families.training_stages import TrainingStage

LOSS_REDUCTIONS = ("global", "micro_batch")


@dataclasses.dataclass
class WallarooTrainingArguments(TrainingArguments):
    """`TrainingArguments` for [`WallarooTrainer`].

    Other defaults than transformers': all columns of a row reach the collator; a loss that is not finite is shown as such;
    evaluation keeps the losses only; DDP does not look for parameters without gradient (every process runs all parts).

    Attributes:
        loss_reduction: `"global"`: the means of the loss are over all labels of a step, whatever it is split into;
            `"micro_batch"`: over each micro-batch, and the mean of those (the released code).
        loss_weights: weight per task (`understanding`, `generation`, `editing`), default 1.
        max_non_finite_steps: training stops after that many steps in a row without a finite loss.
        use_muon: train matrices with Muon and the rest with AdamW ([`MuonAdamW`]) in place of `optim`; for small models.
        padding_free: rows of a micro-batch follow each other instead of being padded. Saves time with flash-attn; with
            other attention implementations it is correct but costs memory.
        check_weights: look for weights that are not finite in a checkpoint that is resumed.
    """

    remove_unused_columns: bool = dataclasses.field(default=False)
    logging_nan_inf_filter: bool = dataclasses.field(default=False)
    prediction_loss_only: bool = dataclasses.field(default=True)
    ddp_find_unused_parameters: bool | None = dataclasses.field(default=False)
    loss_reduction: str = dataclasses.field(
        default="global", metadata={"help": "Take the loss's means over the whole step (global) or each micro_batch."}
    )
    loss_weights: dict[str, float] | None = dataclasses.field(
        default=None, metadata={"help": "Weight of each task in the loss."}
    )
    max_non_finite_steps: int = dataclasses.field(
        default=3, metadata={"help": "Stop after that many steps in a row whose loss is not finite."}
    )
    use_muon: bool = dataclasses.field(
        default=False, metadata={"help": "Train matrices with Muon and the rest with AdamW; for small models."}
    )
    padding_free: bool = dataclasses.field(
        default=False, metadata={"help": "Rows follow each other instead of being padded; for flash-attn."}
    )

    check_weights: bool = dataclasses.field(
        default=True, metadata={"help": "Look for weights that are not finite in a checkpoint that is resumed."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss_reduction not in LOSS_REDUCTIONS:
            raise ValueError(
                f"`loss_reduction` is {self.loss_reduction!r}, but must be one of {', '.join(LOSS_REDUCTIONS)}."
            )
        if self.max_non_finite_steps < 1:
            raise ValueError(f"`max_non_finite_steps` is {self.max_non_finite_steps}, but must be at least 1.")

    @classmethod
    def for_stage(
        cls, stage: TrainingStage, output_dir: str, per_device_train_batch_size: int, **kwargs: Any
    ) -> "WallarooTrainingArguments":
        """Arguments of a stage; accumulation steps make up its global batch.

        Args:
            per_device_train_batch_size: rows of one process in one forward.
            kwargs: any other `TrainingArguments`, which win over the stage's.

        Raises:
            ValueError: if the global batch is no multiple of what the processes take in one forward.
        """
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        together = per_device_train_batch_size * processes
        if stage.global_batch_size % together:
            raise ValueError(
                f"Stage {stage.name} has batches of {stage.global_batch_size} rows, which {processes} processes "
                f"cannot make up with {per_device_train_batch_size} rows each; choose a `per_device_train_batch_size` that "
                f"divides {stage.global_batch_size // processes or 1}, or override `global_batch_size`."
            )
        settings = stage.training_arguments() | {
            "gradient_accumulation_steps": stage.global_batch_size // together,
            "loss_weights": dict(stage.loss_weights) or None,
        }
        return cls(
            output_dir=output_dir, per_device_train_batch_size=per_device_train_batch_size, **{**settings, **kwargs}
        )
