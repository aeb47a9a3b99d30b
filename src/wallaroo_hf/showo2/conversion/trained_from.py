"""What a Show-o2 was trained from: the configurations of its language model and of its SigLIP, and the tokenizer."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, Qwen2Config, SiglipConfig, SiglipVisionConfig

from ...conversion.released_weights import reading_source
from ...families.loading import some
from ..showo2_tokens import ADDED_TOKENS, add_tokens
from .trained_sizes import disagreements, text_sizes, vision_sizes

__all__ = ["read_ids", "read_text_config", "read_tokenizer", "read_vision_config"]

logger = logging.getLogger(__name__)
_BASE, _VISION = (
    "give the Qwen2.5 that it was trained from, a folder or Hub id",
    "give the SigLIP that it was trained from",
)
# The authors' names of ids -> entries of `config.json`.
_RELEASED_IDS = {
    "bos_id": "bos_token_id",
    "eos_id": "eos_token_id",
    "pad_id": "pad_token_id",
    "boi_id": "vision_start_token_id",
    "eoi_id": "vision_end_token_id",
    "img_pad_id": "image_token_id",
    "vid_pad_id": "video_token_id",
    "img_id": "image_placeholder_token_id",
    "bov_id": "video_start_token_id",
    "eov_id": "video_end_token_id",
}
_NO_ID = "llm_vocab_size"  # stands among them, and the table says it


def read_text_config(base: str | Path, tensors: Mapping[str, torch.Tensor]) -> Qwen2Config:
    """The language model's configuration, with as many tokens as the table has rows.

    Args:
        tensors: the checkpoint's, by our names.

    Raises:
        ValueError: if it is no Qwen2, or of other sizes than the tensors.
        KeyError: if a tensor is missing.
    """
    with reading_source(base, "base", "configuration", _BASE):
        config = AutoConfig.from_pretrained(base)
    if type(config) is not Qwen2Config:
        raise ValueError(
            f"The base '{base}' is a {config.model_type} model, but Show-o2 was trained from Qwen2.5; {_BASE}."
        )
    sizes = text_sizes(tensors)
    rows = sizes.pop("vocab_size")
    faults = disagreements(sizes, config, sizes)
    if config.vocab_size + len(ADDED_TOKENS) < rows:
        faults.append(f"`vocab_size` is {config.vocab_size} there, but the checkpoint has {rows} tokens")
    if faults:
        raise ValueError(f"The base '{base}' is not what the checkpoint was trained from: {some(faults)}; {_BASE}.")
    config.vocab_size = rows
    return config


def read_vision_config(vision: str | Path, tensors: Mapping[str, torch.Tensor]) -> SiglipVisionConfig:
    """The semantic layers' configuration, with as many layers as there are: the authors left the last one out.

    Args:
        tensors: the checkpoint's, by our names.

    Raises:
        ValueError: if it is no SigLIP, or of other sizes than the tensors.
        KeyError: if a tensor is missing.
    """
    with reading_source(vision, "SigLIP", "configuration", _VISION):
        config = AutoConfig.from_pretrained(vision)
    if type(config) is SiglipConfig:
        config = config.vision_config
    if type(config) is not SiglipVisionConfig:
        raise ValueError(
            f"The SigLIP '{vision}' is a {config.model_type} model, but Show-o2 sees through layers of SigLIP; {_VISION}."
        )
    sizes = vision_sizes(tensors)
    layers = sizes.pop("num_hidden_layers")
    faults = disagreements(sizes, config, sizes)
    if layers not in (config.num_hidden_layers, config.num_hidden_layers - 1):
        faults.append(f"`num_hidden_layers` is {config.num_hidden_layers} there and {layers} in the checkpoint")
    if faults:
        raise ValueError(
            f"The SigLIP '{vision}' is not what the checkpoint was trained from: {some(faults)}; {_VISION}."
        )
    config.num_hidden_layers = layers
    return config


def read_tokenizer(base: str | Path, rows: int) -> Any:
    """The base's tokenizer with Show-o2's four tokens.

    Args:
        rows: of the checkpoint's table.

    Raises:
        ValueError: if it lacks Qwen2.5's tokens, or has more than the table.
    """
    with reading_source(base, "base", "tokenizer", _BASE):
        tokenizer = AutoTokenizer.from_pretrained(base)
        add_tokens(tokenizer)
    highest = max(tokenizer.get_vocab().values())
    if highest >= rows:
        raise ValueError(
            f"The vocabulary of the base '{base}' is not that of the checkpoint: with Show-o2's tokens its ids go up to "
            f"{highest}, but there are {rows} rows of embeddings; {_BASE}."
        )
    if highest < rows - 1:
        logger.warning(
            "The checkpoint has %d rows of embeddings, but with Show-o2's tokens the ids of the base '%s' go up to %d "
            "only; if it was not trained from this base, its added tokens are not where it has them.",
            *(rows, base, highest),
        )
    return tokenizer


def read_ids(token_ids: Mapping[str, int], rows: int) -> dict[str, int]:
    """Entries of `config.json` from ids by the authors' names.

    Args:
        token_ids: by name; `llm_vocab_size` may stand among them.
        rows: of the checkpoint's table.

    Raises:
        ValueError: if names are missing or unknown, or ids are none.
    """
    unknown = sorted(map(str, token_ids.keys() - _RELEASED_IDS.keys() - {_NO_ID}))
    missing = sorted(_RELEASED_IDS.keys() - token_ids.keys())
    if unknown or missing:
        faults = [f"`{name}` is unknown" for name in unknown] + [f"`{name}` is missing" for name in missing]
        raise ValueError(f"`token_ids` are not complete: {some(faults)}; give {', '.join(_RELEASED_IDS)}.")
    wrong = [
        f"`{name}` is {token_ids[name]!r}"
        for name in _RELEASED_IDS
        if not isinstance(token_ids[name], int) or not 0 <= token_ids[name] < rows
    ]
    if wrong:
        raise ValueError(
            f"`token_ids` must be from 0 to {rows - 1}, the rows of the checkpoint's table, but {some(wrong)}."
        )
    return {entry: token_ids[name] for name, entry in _RELEASED_IDS.items()}
