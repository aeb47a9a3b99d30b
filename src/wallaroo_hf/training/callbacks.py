"""`StageCallback`: freezes what a stage does not train, and records the stage in its checkpoints."""

import logging
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..families.registry import kit_of
from ..families.training_stages import TrainingStage, check_order

__all__ = ["StageCallback", "trainable_summary"]

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

    def __init__(self, stage: TrainingStage, force: bool = False) -> None:
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
        bare = model.get_base_model() if is_peft else model
        kit = kit_of(bare)
        warning = check_order(getattr(bare.config, "stage", None), self.stage, self.force)
        if warning:
            logger.warning(warning)
        kit.check_model(bare, self.stage)
        if not is_peft:
            kit.check_parts(bare, self.stage)
            for name, parameter in bare.named_parameters():
                parameter.requires_grad = kit.is_trained(self.stage, name)
        bare.config.stage = self.stage.name
        trains, total = trainable_summary(model)
        share = 100 * trains / total
        logger.info(f"Stage {self.stage.name} trains {trains:,} of {total:,} parameters ({share:.1f} %).")


def trainable_summary(model: Any) -> tuple[int, int]:
    """Numbers of trainable parameters and of all parameters."""
    # with ZeRO-3 a parameter is empty but when it is used, and DeepSpeed keeps its size beside it
    sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in model.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)
