"""What a Wallaroo checkpoint has of the Qwen2.5-VL that it grows from: configuration, tokenizer, processor, settings."""

import contextlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AddedToken, AutoConfig, AutoTokenizer, GenerationConfig, Qwen2_5_VLConfig

from ..families.loading import some
from ..layout.checkpoint_layout import Layout
from ..layout.special_tokens import (
    CONFIG_TOKEN_IDS,
    DRAWING_TOKENS,
    IM_END,
    IM_START,
    PAD,
    added_tokens,
    config_token_ids,
)
from ..modeling.configuration import WallarooConfig, WallarooVQConfig
from ..modeling.model import WallarooForConditionalGeneration
from ..processing.image_processor import WallarooImageProcessor
from ..processing.processor import WallarooProcessor
from .released_files import one_line
from .released_weights import optional_file, reading_source

__all__ = ["base_config", "base_generation_config", "base_processor", "base_tokenizer", "grown_config"]

# What the base tokenizer must bring along.
QWEN_TOKENS = (PAD, IM_START, IM_END, *(token for token in CONFIG_TOKEN_IDS.values() if token not in DRAWING_TOKENS))


def base_config(base: str | Path) -> Qwen2_5_VLConfig:
    """The configuration of a base.

    Raises:
        ValueError: if it is no Qwen2.5-VL.
    """
    with _reading(base, "configuration"):
        config = AutoConfig.from_pretrained(base)
    if not isinstance(config, Qwen2_5_VLConfig):
        raise ValueError(
            f"The base '{base}' is a {config.model_type} model, but Wallaroo was trained from Qwen2.5-VL; give that."
        )
    return config


def base_tokenizer(base: str | Path, layout: Layout) -> Any:
    """The base tokenizer with Wallaroo's tokens; those that it already has keep their ids.

    Raises:
        ValueError: if it lacks tokens of Qwen2.5-VL.
    """
    with _reading(base, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(base)
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in QWEN_TOKENS if token not in vocabulary]
    if missing:
        raise ValueError(
            f"The tokenizer of the base '{base}' lacks {some(missing)}; give a Qwen2.5-VL folder or Hub id."
        )
    tokens = added_tokens(layout.indicators)
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in tokens], special_tokens=True)
    return tokenizer


def grown_config(
    base: str | Path,
    qwen: Qwen2_5_VLConfig,
    tokenizer: Any,
    vq_config: WallarooVQConfig,
    stage: str | None,
    layout: Layout,
    dtype: torch.dtype,
) -> WallarooConfig:
    """The configuration of a Wallaroo model that grows from a base.

    Args:
        base: what it is called, for messages.
        qwen: from [`base_config`].
        tokenizer: from [`base_tokenizer`].
        vq_config: of the image tokenizer.
        stage: that its weights went through, if any.
        layout: of its sequences.
        dtype: of its weights.

    Raises:
        ValueError: if what the base says does not fit, or it has too few rows of embeddings.
    """
    settings = qwen.to_dict()
    for key in ("architectures", "model_type", "transformers_version", "dtype", "_name_or_path"):
        settings.pop(key, None)
    # transformers 4.5x repeats the text settings beside `text_config`
    own = {field.name for field in fields(WallarooConfig)}
    settings = {key: value for key, value in settings.items() if key in own or key not in settings["text_config"]}
    settings |= config_token_ids(tokenizer.convert_tokens_to_ids, layout.indicators)
    settings |= {
        "vq_config": vq_config.to_dict(),
        "codebook_size": vq_config.codebook_size,
        "has_editing": layout.has_editing,
        "stage": stage,
    }
    try:
        config = WallarooConfig(**settings, architectures=[WallarooForConditionalGeneration.__name__], dtype=dtype)
    except (ValueError, StrictDataclassError) as error:
        raise ValueError(
            f"The config.json of the base '{base}' does not fit ({one_line(error)}); correct it, or give a Qwen2.5-VL "
            "folder or Hub id."
        ) from error
    highest = max(tokenizer.convert_tokens_to_ids(list(tokenizer.get_added_vocab())), default=0)
    if highest >= config.text_config.vocab_size:
        raise ValueError(
            f"The tokenizer's ids go up to {highest}, but the base model has only {config.text_config.vocab_size} "
            "embedding rows; give the base that the checkpoint was trained from."
        )
    return config


def base_processor(base: str | Path, tokenizer: Any, config: WallarooConfig, layout: Layout) -> WallarooProcessor:
    """A processor with a base's image processor and chat template.

    Args:
        base: folder or Hub id.
        tokenizer: from [`base_tokenizer`].
        config: from [`grown_config`].
        layout: of sequences.
    """
    with _reading(base, "image processor"):
        image_processor = WallarooImageProcessor.from_pretrained(base)
    return WallarooProcessor(
        image_processor,
        tokenizer,
        chat_template=_chat_template(base, tokenizer),
        image_token_size=config.vq_config.image_token_size,
        **layout.processor_settings(),
    )


def _chat_template(base: str | Path, tokenizer: Any) -> str:
    with _reading(base, "chat template"):
        path = optional_file(base, "chat_template.json")
        if path is not None:
            return json.loads(path.read_text(encoding="utf-8"))["chat_template"]
        path = optional_file(base, "chat_template.jinja")
        if path is not None:
            return path.read_text(encoding="utf-8")
    if tokenizer.chat_template is None:
        raise ValueError(f"The base '{base}' has no chat template; give a Qwen2.5-VL folder or Hub id.")
    return tokenizer.chat_template


def base_generation_config(base: str | Path, tokenizer: Any, layout: Layout) -> GenerationConfig:
    """A base's settings of answers, with those that drawings begin with."""
    generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)  # where Qwen2.5-VL stops
    with _reading(base, "generation configuration"):
        if optional_file(base, "generation_config.json") is not None:
            generation_config = GenerationConfig.from_pretrained(base)
    if generation_config.pad_token_id is None:
        generation_config.pad_token_id = tokenizer.convert_tokens_to_ids(PAD)
    for key, value in layout.generation_settings().items():
        setattr(generation_config, key, value)
    return generation_config


def _reading(base: str | Path, part: str) -> contextlib.AbstractContextManager[None]:
    return reading_source(base, "base", part, "give a Qwen2.5-VL folder or Hub id")
