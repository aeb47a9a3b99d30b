"""Bringing a checkpoint to a stage: its layout, its tokens, and the editing parts once they are needed."""

import copy
import dataclasses
import logging

from torch import nn
from transformers import AddedToken

from ..layout.checkpoint_layout import PAPER_LAYOUTS, Layout
from ..layout.special_tokens import added_tokens, indicator_token_ids
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
    the editing parts that the checkpoint lacks. Weights are not changed. What was there already stays: a stage without a
    layout keeps the checkpoint's, and one with a layout of the paper's keeps its sizes, unless the stage names others
    (`buckets`, `indicator_sizes`, each for itself) or the recipe changes them from the checkpoint's stage to this one. A
    size that no indicator announces exactly is warned of.

    Args:
        force: start from a checkpoint of any stage.

    Raises:
        ValueError: if the stage does not follow the checkpoint's, its layout does not fit the model, or the new tokens do
            not fit the embedding table.
    """
    layout = prepare_processor(processor, model.config, stage, force)
    indicators = indicator_token_ids(processor.tokenizer.convert_tokens_to_ids, layout.indicators)
    model.config.indicator_token_ids = model.model.config.indicator_token_ids = indicators
    if model.config.stage == stage.name:
        return
    for name, value in layout.generation_settings().items():
        if getattr(model.generation_config, name, None) is None or name == "line_breaks":
            setattr(model.generation_config, name, value)
    if layout.has_editing and not model.config.has_editing:
        add_editing_parts(model, stage.editing_init)


def prepare_processor(
    processor: WallarooProcessor, config: WallarooConfig, stage: Stage, force: bool = False
) -> Layout:
    """The processor's part of [`prepare_for_stage`], for looking at rows without a model.

    Args:
        config: the checkpoint's, as it is before the stage.
        force: start from a checkpoint of any stage.

    Returns:
        The layout that the processor speaks now.

    Raises:
        ValueError: if the stage does not follow the checkpoint's, its layout does not fit the model, or the new tokens do
            not fit the embedding table.
    """
    warning = check_order(config.stage, stage, force)
    if warning:
        logger.warning(warning)
    layout = _layout(processor, config, stage)
    if not layout.has_editing and config.has_editing:
        raise ValueError(
            f"Stage {stage.name} has no editing, but the checkpoint has editing parts, which it would leave untrained; "
            "start from a checkpoint of an earlier stage, or train stage 4."
        )
    tokens = added_tokens(layout.indicators)
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
    if layout.indicators:
        _warn_of_sizes_without_indicator(layout)
    for name, value in layout.processor_settings().items():
        setattr(processor, name, list(layout.buckets) if name == "buckets" else value)
    if stage.indicator_sizes is not None:  # a layout without indicators holds none for later
        processor.indicator_sizes = list(stage.indicator_sizes)
    return layout


def _layout(processor: WallarooProcessor, config: WallarooConfig, stage: Stage) -> Layout:
    """The layout that a checkpoint speaks after a stage: what is not named, and no part of the step, stays its own."""
    own, named = Layout.read(config, processor), stage.layout
    if named is None or config.stage == stage.name:
        return stage.with_sizes(own)
    if named.first_code not in (None, own.first_code):
        raise ValueError(
            f"Stage {stage.name} has image codes from id {named.first_code} on, but the checkpoint's vocabulary ends at "
            f"{own.first_code}; leave `first_code` out of its layout."
        )
    layout = dataclasses.replace(named, first_code=own.first_code)
    if named in PAPER_LAYOUTS.values():
        before = PAPER_LAYOUTS.get(config.stage or "")
        keeps_buckets = own.line_breaks == named.line_breaks if before is None else before.buckets == named.buckets
        if keeps_buckets:
            layout = dataclasses.replace(layout, buckets=own.buckets)
        if named.indicators:  # the checkpoint may have edges that are not announced yet
            layout = dataclasses.replace(layout, indicators=tuple(processor.indicator_sizes))
    return stage.with_sizes(layout)


def _warn_of_sizes_without_indicator(layout: Layout) -> None:
    known = set(layout.indicators)
    without = [f"{height}x{width}" for height, width in layout.buckets if not {height, width} <= known]
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
