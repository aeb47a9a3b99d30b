"""`StageCallback`: freezes what a stage does not train, and records the stage in its checkpoints."""

import logging
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .preparation import trainable_summary
from .stages import Stage, check_order

__all__ = ["StageCallback"]

logger = logging.getLogger(__name__)


class StageCallback(TrainerCallback):
    """Makes a `Trainer` train one stage.

    The freezing is done when the trainer has been built, before its optimizer exists: parameters that are unfrozen later
    would never train. With PEFT the adapters decide what trains, and the callback changes nothing about it.

    Args:
        stage: what to train.
        force: start from a checkpoint of any stage.

    Raises (when the trainer is built):
        ValueError: if the checkpoint's stage is not one that this stage follows, unless `force`, or the model lacks what
            the stage trains.
    """

    def __init__(self, stage: Stage, force: bool = False) -> None:
        self.stage = stage
        self.force = force

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Freezes, says what trains, and writes the stage into the configuration, which checkpoints carry.

        Args:
            args, state, control: the trainer's.
            model: what it trains; with PEFT its adapters around it.
            kwargs: what else the trainer tells its callbacks.

        Raises:
            ValueError: if the checkpoint's stage is not one that this stage follows, or it lacks editing parts.
        """
        is_peft = hasattr(model, "get_base_model")
        wallaroo = model.get_base_model() if is_peft else model
        warning = check_order(wallaroo.config.stage, self.stage, self.force)
        if warning:
            logger.warning(warning)
        layout = self.stage.layout
        if layout is not None and wallaroo.config.has_editing != layout.has_editing:
            wants, has = ("needs", "lacks") if layout.has_editing else ("has no", "has")
            raise ValueError(
                f"Stage {self.stage.name} {wants} editing parts, which the model {has}; call `prepare_for_stage` first."
            )
        if not is_peft:
            self.stage.check_parts(name for name, _ in wallaroo.named_parameters())
            for name, parameter in wallaroo.named_parameters():
                parameter.requires_grad = self.stage.is_trained(name)
        wallaroo.config.stage = self.stage.name
        trains, total = trainable_summary(model)
        share = 100 * trains / total
        logger.info(f"Stage {self.stage.name} trains {trains:,} of {total:,} parameters ({share:.1f} %).")
