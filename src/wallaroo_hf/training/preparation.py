"""Bringing a checkpoint to a stage: its layout, its tokens, and the editing parts once they are needed."""

import copy
import dataclasses
import logging
from typing import Any

from torch import nn
from transformers import AddedToken

from ..layout.special_tokens import added_tokens, indicator_token_ids
from ..layout.stage import StageRecord, stage_record
from ..modeling.adapters import WallarooAdapter, WallarooImageHead
from ..modeling.configuration import WallarooConfig
from ..modeling.model import WallarooForConditionalGeneration
from ..modeling.parts import EDITING, ImageTask, part_names
from ..processing.processor import WallarooProcessor
from .stages import Stage, check_order

logger = logging.getLogger(__name__)


def prepare_for_stage(
    model: WallarooForConditionalGeneration, processor: WallarooProcessor, stage: Stage, force: bool = False
) -> None:
    """Changes model and processor in place so that they speak a stage's layout.

    Sets line breaks and size indicators in the processor and the generation configuration, adds the tokens and (stage 4)
    the editing parts that the checkpoint lacks. Weights are not changed. What was there already stays: the checkpoint keeps
    its own sizes, unless the stage names others (`buckets`, `indicator_sizes`, each for itself) or the recipe changes them
    from the checkpoint's stage to this one. A size that no indicator announces exactly is warned of.

    Args:
        force: start from a checkpoint of any stage.

    Raises:
        ValueError: if the stage does not follow the checkpoint's, or the new tokens do not fit the embedding table.
    """
    prepare_processor(processor, model.config, stage, force)
    announced = processor.indicator_sizes if processor.size_indicators else ()
    indicators = indicator_token_ids(processor.tokenizer.convert_tokens_to_ids, announced)
    model.config.indicator_token_ids = model.model.config.indicator_token_ids = indicators
    if model.config.stage == stage.name:
        return
    record = stage.record
    for name, value in record.generation_settings().items():
        if getattr(model.generation_config, name, None) is None or name == "line_breaks":
            setattr(model.generation_config, name, value)
    if record.has_editing and not model.config.has_editing:
        add_editing_parts(model, stage.editing_init)


def prepare_processor(processor: WallarooProcessor, config: WallarooConfig, stage: Stage, force: bool = False) -> None:
    """The processor's part of [`prepare_for_stage`], for looking at rows without a model.

    Args:
        config: the checkpoint's, as it is before the stage.
        force: start from a checkpoint of any stage.

    Raises:
        ValueError: if the stage does not follow the checkpoint's, or the new tokens do not fit the embedding table.
    """
    warning = check_order(config.stage, stage, force)
    if warning:
        logger.warning(warning)
    record = _layout(processor, config, stage)
    if not record.has_editing and config.has_editing:
        raise ValueError(
            f"Stage {stage.name} has no editing, but the checkpoint has editing parts, which it would leave untrained; "
            "start from a checkpoint of an earlier stage, or train stage 4."
        )
    tokens = added_tokens(record.announced_sizes)
    known = processor.tokenizer.get_vocab()
    missing = [AddedToken(token, special=True, normalized=False) for token in tokens if token not in known]
    processor.tokenizer.add_tokens(missing, special_tokens=True)
    rows = config.text_config.vocab_size
    if len(processor.tokenizer) > rows:
        raise ValueError(
            f"With the tokens of stage {stage.name} the tokenizer has {len(processor.tokenizer)} ids, but the model's "
            f"embedding table has {rows} rows; name `indicator_sizes` that have a token already "
            f"({', '.join(map(str, processor.indicator_sizes))}), or call `model.resize_token_embeddings` first."
        )
    if record.size_indicators:
        _warn_of_sizes_without_indicator(record)
    for name, value in record.processor_settings().items():
        setattr(processor, name, [tuple(bucket) for bucket in value] if name == "buckets" else value)


def _layout(processor: WallarooProcessor, config: WallarooConfig, stage: Stage) -> StageRecord:
    """The layout that a checkpoint speaks after a stage: what is not named, and no part of the step, stays its own."""
    record = stage.record
    if config.stage == stage.name:
        record = dataclasses.replace(
            record,
            line_breaks=processor.line_breaks,
            size_indicators=processor.size_indicators,
            has_editing=config.has_editing,
        )
        keeps_buckets = True
    elif config.stage is None:
        keeps_buckets = processor.line_breaks == record.line_breaks
    else:
        keeps_buckets = stage_record(config.stage).buckets == stage_record(stage.name).buckets
    if stage.buckets is None and keeps_buckets:
        record = dataclasses.replace(record, buckets=tuple(processor.buckets))
    if stage.indicator_sizes is None:
        record = dataclasses.replace(record, indicator_sizes=tuple(processor.indicator_sizes))
    return record


def _warn_of_sizes_without_indicator(record: StageRecord) -> None:
    known = set(record.indicator_sizes)
    without = [f"{height}x{width}" for height, width in record.buckets if not {height, width} <= known]
    if without:
        logger.warning(
            "The sizes %s have no indicator of their own, so prompts will announce the nearest of %s; name such sizes in "
            "`indicator_sizes` too, or choose others.",
            ", ".join(without),
            ", ".join(map(str, sorted(known))),
        )


def add_editing_parts(model: WallarooForConditionalGeneration, init: str = "random") -> None:
    """Gives a model of stages 1 to 3 the editing parts, in place; see [`add_image_parts`]."""
    add_image_parts(model, EDITING, init)


def add_image_parts(model: WallarooForConditionalGeneration, task: ImageTask, init: str = "random") -> None:
    """Gives a model new adapters and a new head of an image task, in place. What it shares with another task stays.

    Args:
        task: one that the checkpoint can do without.
        init: `"random"` (the released code loads stage 3 into a model with new editing parts), or `"generation"`: adapters
            are copies of the generation adapter, the head of the generation head.
    """
    others = [other for other in model.config.image_tasks if other != task and model.config.has_task(other)]
    new = [name for name in task.adapters if name not in part_names(others)]
    for config in (model.config, model.model.config):
        setattr(config, str(task.switch), True)
    like = model.generation_head[0].weight
    adapters: list[nn.Module]
    head: nn.Module
    if init == "generation":
        adapters = [copy.deepcopy(model.model.generation_adapter) for _ in new]
        head = copy.deepcopy(model.generation_head)
    else:
        adapters = [WallarooAdapter(model.config) for _ in new]
        head = WallarooImageHead(model.config)
        for part in (*adapters, head):
            for module in part.modules():
                model._init_weights(module)
    for name, adapter in zip(new, adapters, strict=True):
        setattr(model.model, name, adapter.to(like))
    setattr(model, task.head, head.to(like))


def trainable_summary(model: Any) -> tuple[int, int]:
    """Numbers of trainable parameters and of all parameters."""
    # with ZeRO-3 a parameter is empty but when it is used, and DeepSpeed keeps its size beside it
    sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in model.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)
