"""A small Show-o2 from nothing: the full one's classes with other numbers, a linear codec, a tokenizer of its own."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from transformers import GenerationConfig

from ...common.chat_form import IM_END, IM_START, IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START
from ...families.vocabulary import KnownWords
from ...training.scenes.small_tokenizer import learn_tokenizer
from ..image_codecs import LinearCodec
from ..processing.showo2_processor import ShowO2Processor
from ..showo2_configuration import ShowO2Config
from ..showo2_model import ShowO2ForConditionalGeneration
from ..showo2_tokens import add_tokens, config_token_ids

__all__ = ["CODEC", "GUIDANCE_SCALE", "PLAIN_ROPE", "fit_codec", "new_small_showo2", "small_tokenizer"]

# Those of Qwen2.5 that a chat needs; the first ends texts there.
_CHAT_TOKENS = ("<|endoftext|>", IM_START, IM_END, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD)
CODEC: dict[str, Any] = {"type": "linear", "channels": 16, "patch": 8}
# At the released 5, small pictures of one object get several: the words then say more than they do.
GUIDANCE_SCALE = 2.0
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10000.0}


def small_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A byte-level BPE with the special tokens of Qwen2.5 that are needed, and Show-o2's.

    Args:
        texts: what it shall write well.
        vocab_size: tokens before the special ones, at most.
    """
    tokenizer = learn_tokenizer(texts, vocab_size, _CHAT_TOKENS)
    add_tokens(tokenizer)
    return tokenizer


def fit_codec(pictures: Iterable[torch.Tensor]) -> LinearCodec:
    """The codec of small models.

    Args:
        pictures: `(3, H, W)` in [-1, 1]; read once.
    """
    return LinearCodec(channels=CODEC["channels"], patch=CODEC["patch"]).fit(pictures)


def new_small_showo2(
    tokenizer: Any,
    codec: LinearCodec,
    sizes: Sequence[tuple[int, int]],
    *,
    width: int = 192,
    num_hidden_layers: int = 6,
    num_flow_layers: int = 3,
    num_heads: int = 4,
    num_key_value_heads: int = 2,
    intermediate_size: int = 512,
    semantic_width: int = 96,
    num_semantic_layers: int = 2,
    seed: int = 0,
    known_words: KnownWords | None = None,
) -> tuple[ShowO2ForConditionalGeneration, ShowO2Processor]:
    """A model with random weights around a codec, and its processor.

    Args:
        tokenizer: from [`small_tokenizer`].
        codec: from [`fit_codec`]; its numbers are copied.
        sizes: `(height, width)` in pixels that are drawn and seen; the first decides the position table.
        width: of language model and flow head, which therefore need no projections between them.
        seed: of the random weights.
        known_words: all that it will learn, see [`ShowO2Processor`].
    """
    heads = {"num_attention_heads": num_heads, "num_key_value_heads": num_key_value_heads}
    edge = 2 * codec.spatial_factor
    ids = config_token_ids(tokenizer)
    config = ShowO2Config(
        text_config={
            "vocab_size": -(-len(tokenizer) // 64) * 64,
            "hidden_size": width,
            "intermediate_size": intermediate_size,
            "num_hidden_layers": num_hidden_layers,
            "max_position_embeddings": 4096,
            "rope_parameters": dict(PLAIN_ROPE),
            "tie_word_embeddings": True,
            "bos_token_id": ids["bos_token_id"],
            "eos_token_id": ids["eos_token_id"],
            "pad_token_id": ids["pad_token_id"],
            **heads,
        },
        vision_config={
            "hidden_size": semantic_width,
            "intermediate_size": 2 * semantic_width,
            "num_hidden_layers": num_semantic_layers,
            "num_attention_heads": num_heads,
        },
        flow_config={
            "hidden_size": width,
            "intermediate_size": intermediate_size,
            "num_hidden_layers": num_flow_layers,
            "head_dim": width // num_heads,
            "rope_parameters": dict(PLAIN_ROPE),
            **heads,
        },
        codec_config=dict(CODEC),
        output_layout="patches",
        position_grid=[sizes[0][0] // edge, sizes[0][1] // edge],
        drawing_sizes=[list(size) for size in sizes],
        architectures=[ShowO2ForConditionalGeneration.__name__],
        **ids,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ShowO2ForConditionalGeneration(config)
    model.vae.load_state_dict(codec.state_dict())
    model.generation_config = GenerationConfig(
        eos_token_id=ids["eos_token_id"], pad_token_id=ids["pad_token_id"], image_guidance_scale=GUIDANCE_SCALE
    )
    processor = ShowO2Processor.of_config(config, tokenizer, sizes=sizes, known_words=known_words)
    return model.eval(), processor
