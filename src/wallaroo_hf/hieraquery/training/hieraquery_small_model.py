"""A small HieraQuery from nothing around a language model that is there: the full one's classes with other numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from ...families.loading import load_model
from ...families.vocabulary import KnownWords
from ..hieraquery_configuration import HieraQueryConfig
from ..hieraquery_model import HieraQueryForConditionalGeneration
from ..processing.hieraquery_processor import HieraQueryProcessor

__all__ = ["SMALL_SCALES", "new_small_hieraquery"]

# Of a picture of six codes by six: two by two, four by four, all.
SMALL_SCALES: tuple[Mapping[str, Any], ...] = (
    {"query_grid": (2, 2), "factor": 1 / 3},
    {"query_grid": (4, 4), "factor": 2 / 3},
    {"query_grid": (6, 6), "factor": 1.0},
)
_CODEC_SETTINGS = (
    *("codebook_size", "embed_dim", "base_channels", "channel_multiplier", "num_res_blocks", "latent_channels"),
    "norm_num_groups",
)
_GUIDANCE_SCALE, _STEPS = 2.5, 16  # of drawing


def new_small_hieraquery(
    language_model: str | Path,
    codec: Any,
    *,
    scales: Sequence[Mapping[str, Any]] = SMALL_SCALES,
    condition: str = "own",
    query_positions: str = "text",
    query_groups: str = "coarse_to_fine",
    alignment_weight: float = 0.5,
    sizes: Sequence[tuple[int, int]] = ((96, 96),),
    width: int = 192,
    num_connector_layers: int = 2,
    num_layers: int = 6,
    num_heads: int = 6,
    condition_size: int = 192,
    condition_dropout: float = 0.1,
    seed: int = 0,
    known_words: KnownWords | None = None,
) -> tuple[HieraQueryForConditionalGeneration, HieraQueryProcessor]:
    """A model whose queries, connector, diffusion transformer (a Sana) and alignment are new, and its processor; float32.

    Args:
        language_model: folder of a Qwen2.5-VL, such as the built-in checkpoint's `export_qwen` writes; it stays as it is.
        codec: a Wallaroo image tokenizer, whose weights are copied, such as its family's kit loads
            (`family_of("wallaroo", ...).training_kit().load_codec(folder)`); it stays as it is.
        scales, condition, query_positions, query_groups, alignment_weight, condition_dropout: see [`HieraQueryConfig`].
        sizes: `(height, width)` in pixels that are drawn; the first is drawn where none is asked for.
        width: of connector and diffusion transformer, a multiple of its heads.
        num_connector_layers, num_layers, num_heads: of the connector, and of the diffusion transformer.
        condition_size: width of conditions.
        seed: of the random weights.
        known_words: all that the language model learned, see [`HieraQueryProcessor`].

    Raises:
        ValueError: if there is no such language model.
    """
    mllm = load_model(Qwen2_5_VLForConditionalGeneration, language_model, what="language model", dtype=torch.float32)
    codec_settings = {name: getattr(codec.config, name) for name in _CODEC_SETTINGS}
    head = width // num_heads
    config = HieraQueryConfig(
        mllm_config=mllm.config.to_dict(),
        connector_config={
            **{"vocab_size": 1, "pad_token_id": None, "hidden_size": width, "intermediate_size": 5 * width // 2},
            **{"num_hidden_layers": num_connector_layers, "num_attention_heads": num_heads},
            **{"num_key_value_heads": num_heads, "max_position_embeddings": 1024},
        },
        dit={
            **{"_class_name": "SanaTransformer2DModel", "in_channels": codec.config.embed_dim, "patch_size": 1},
            **{"out_channels": codec.config.embed_dim, "num_layers": num_layers, "caption_channels": condition_size},
            **{"num_attention_heads": num_heads, "attention_head_dim": head, "cross_attention_dim": width},
            **{"num_cross_attention_heads": num_heads, "cross_attention_head_dim": head},
            **{"sample_size": max(sizes[0]) // codec.config.image_token_size, "interpolation_scale": 1},
        },
        codec={"_class_name": "WallarooVQModel", **codec_settings},
        scales=[dict(scale) for scale in scales],
        condition=condition,
        query_positions=query_positions,
        query_groups=query_groups,
        alignment_weight=alignment_weight,
        alignment_width=2 * width,
        condition_dropout=condition_dropout,
        query_std=float(mllm.model.language_model.embed_tokens.weight.detach().std()),
        size=list(sizes[0]),
        drawing_sizes=[list(size) for size in sizes],
        coarse_sizes="nearest",
        architectures=[HieraQueryForConditionalGeneration.__name__],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = HieraQueryForConditionalGeneration(config)
    model.mllm.load_state_dict(mllm.state_dict())
    model.codec.tokenizer.load_state_dict(codec.state_dict())
    settings = model.generation_config = model.mllm.generation_config = mllm.generation_config
    settings.image_guidance_scale, settings.image_num_inference_steps = _GUIDANCE_SCALE, _STEPS
    settings._from_model_config = False
    return model.eval(), HieraQueryProcessor.of_language_model(language_model, config, known_words)
