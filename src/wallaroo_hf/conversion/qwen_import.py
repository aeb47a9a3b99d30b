"""`wallaroo_from_qwen`: a new Wallaroo around a Qwen2.5-VL, which learned no drawing yet; the way back is `export_qwen`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from ..families.loading import load_model
from ..families.vocabulary import KnownWords
from ..layout.checkpoint_layout import paper_layout
from ..modeling.model import WallarooForConditionalGeneration
from ..modeling.vq import WallarooVQModel
from ..processing.processor import WallarooProcessor
from .qwen_base import base_config, base_generation_config, base_processor, base_tokenizer, grown_config

__all__ = ["wallaroo_from_qwen"]


def wallaroo_from_qwen(
    language_model: str | Path,
    image_tokenizer: WallarooVQModel,
    sizes: Sequence[tuple[int, int]],
    *,
    pixel_limits: dict[str, int] | None = None,
    seed: int = 0,
    known_words: KnownWords | None = None,
    check_weights: bool = True,
) -> tuple[WallarooForConditionalGeneration, WallarooProcessor]:
    """A model in float32 on the CPU whose adapters and heads are new, in the layout of the last stage, and its processor.

    Before it is trained it answers as the language model does.

    Args:
        language_model: folder or Hub id of a Qwen2.5-VL.
        image_tokenizer: its weights are copied.
        sizes: `(height, width)` in pixels that are drawn; their edges are what prompts announce.
        pixel_limits: areas between which pictures are looked at, `shortest_edge` and `longest_edge`; None = the language
            model's own.
        seed: of the new weights.
        known_words: all that the language model learned, see [`WallarooProcessor`].
        check_weights: whether to look for weights that are not finite.

    Raises:
        ValueError: if there is no such language model, or it is no Qwen2.5-VL with room for the tokens.
    """
    edges = tuple(sorted({edge for size in sizes for edge in size}))
    layout = dataclasses.replace(paper_layout("4"), buckets=tuple(sizes), indicators=edges)
    qwen = base_config(language_model)
    source = load_model(
        Qwen2_5_VLForConditionalGeneration, language_model, check_weights, "language model", dtype=torch.float32
    )
    tokenizer = base_tokenizer(language_model, layout)
    config = grown_config(
        language_model, qwen, tokenizer, image_tokenizer.config, stage=None, layout=layout, dtype=torch.float32
    )
    layout = dataclasses.replace(layout, first_code=config.text_config.vocab_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = WallarooForConditionalGeneration(config)
    _copy(source, model)
    model.model.vq_model.load_state_dict(image_tokenizer.state_dict())
    model.generation_config = base_generation_config(language_model, tokenizer, layout)
    _allow_drawing(model)
    processor = base_processor(language_model, tokenizer, config, layout)
    if known_words is not None:
        processor.known_words = {language: dict(kinds) for language, kinds in known_words.items()}
    if pixel_limits is not None:
        processor.pixel_limits = {"editing": dict(pixel_limits), "understanding": dict(pixel_limits)}
    return model.eval(), processor


@torch.no_grad()
def _copy(source: Any, model: Any) -> None:
    """Every weight of the language model, which has the same name here."""
    own = model.state_dict()
    for name, weight in source.state_dict().items():
        own[name].copy_(weight)


def _allow_drawing(model: WallarooForConditionalGeneration) -> None:
    """What an exported language model must not say is what drawings are made of."""
    settings = model.generation_config
    kept = sorted({*(settings.suppress_tokens or ())} - {*model.config.drawing_token_ids})
    settings.suppress_tokens = kept or None
