"""`showo2_from_qwen`: a new Show-o2 around the language model of a Qwen2.5-VL, which learned no picture of its own yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    SiglipVisionModel,
)

from ...conversion.released_weights import reading_source
from ...families.loading import load_model, reading_checkpoint
from ...families.vocabulary import KnownWords
from ..processing.showo2_processor import ShowO2Processor
from ..showo2_abilities import DEFAULT_GUIDANCE_SCALE, DEFAULT_STEPS
from ..showo2_configuration import ShowO2Config
from ..showo2_model import ShowO2ForConditionalGeneration
from ..showo2_tokens import add_tokens, config_token_ids

__all__ = ["PictureParts", "load_siglip", "load_wan", "showo2_from_qwen"]

_ROWS = 64  # the table of words grows by whole blocks of these
# Settings of a Qwen2.5 that a Qwen2.5-VL's language model has too; its positions are those of plain text.
_TEXT = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("max_position_embeddings", "rms_norm_eps", "hidden_act", "initializer_range"),
)


@dataclass(frozen=True)
class PictureParts:
    """What a new Show-o2 sees and draws with.

    Attributes:
        codec: an image codec with weights; copied.
        codec_config: what names it, see [`ShowO2Config`].
        vision_config: of the semantic layers.
        flow_config: of the flow head; {} = as released.
        semantic: weights of the semantic path by its own names; what is not there is new.
        position_grid: rows and columns of its table of positions.
        output_layout: see [`ShowO2Config`].
        guidance_scale, num_inference_steps: of drawing, where nothing is said.
    """

    codec: Any
    codec_config: Mapping[str, Any]
    vision_config: Mapping[str, Any]
    flow_config: Mapping[str, Any]
    semantic: Mapping[str, torch.Tensor]
    position_grid: tuple[int, int]
    output_layout: str = "raster"
    guidance_scale: float = DEFAULT_GUIDANCE_SCALE
    num_inference_steps: int = DEFAULT_STEPS


def showo2_from_qwen(
    language_model: str | Path,
    parts: PictureParts,
    sizes: Sequence[tuple[int, int]],
    seen: Sequence[tuple[int, int]],
    *,
    seed: int = 0,
    known_words: KnownWords | None = None,
    check_weights: bool = True,
) -> tuple[ShowO2ForConditionalGeneration, ShowO2Processor]:
    """A model in float32 on the CPU whose words are a Qwen2.5-VL's, and its processor.

    The vision encoder of that one is left out: Show-o2 sees in latents, through layers of its own.

    Args:
        language_model: folder or Hub id of a Qwen2.5-VL.
        parts: what it sees and draws with.
        sizes: `(height, width)` in pixels that are drawn.
        seen: those of pictures to understand.
        seed: of the new weights.
        known_words: all that the language model learned, see [`ShowO2Processor`].
        check_weights: whether to look for weights that are not finite.

    Raises:
        ValueError: if there is no such language model, or the parts do not fit it.
    """
    source = load_model(
        Qwen2_5_VLForConditionalGeneration, language_model, check_weights, "language model", dtype=torch.float32
    )
    with reading_source(language_model, "language model", "tokenizer", "give the folder or Hub id of a Qwen2.5-VL"):
        tokenizer = AutoTokenizer.from_pretrained(language_model)
        add_tokens(tokenizer)
    config = _config(source.config, tokenizer, parts, sizes)
    with torch.random.fork_rng(devices=[]), reading_checkpoint("the given parts", "model", "give parts that belong"):
        torch.manual_seed(seed)
        model = ShowO2ForConditionalGeneration(config)
    _fill(model, source, parts)
    ids = {name: getattr(config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(
        **ids,
        do_sample=False,
        image_guidance_scale=parts.guidance_scale,
        image_num_inference_steps=parts.num_inference_steps,
    )
    return model.eval(), ShowO2Processor.of_config(config, tokenizer, sizes=seen, known_words=known_words)


def _config(qwen: Any, tokenizer: Any, parts: PictureParts, sizes: Sequence[tuple[int, int]]) -> ShowO2Config:
    text, ids = qwen.text_config, config_token_ids(tokenizer)
    rows = max(text.vocab_size, -(-(1 + max(tokenizer.get_vocab().values())) // _ROWS) * _ROWS)
    rope = {key: value for key, value in (text.rope_parameters or {}).items() if key != "mrope_section"}
    tied = bool(qwen.tie_word_embeddings)
    words = Qwen2Config(
        **{name: getattr(text, name) for name in _TEXT},
        vocab_size=rows,
        rope_parameters={**rope, "rope_type": "default"},
        tie_word_embeddings=tied,
        **{name: ids[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
    )
    return ShowO2Config(
        text_config=words.to_dict(),
        vision_config=dict(parts.vision_config),
        flow_config=dict(parts.flow_config),
        codec_config=dict(parts.codec_config),
        latent_channels=parts.codec.latent_channels,
        output_layout=parts.output_layout,
        position_grid=list(parts.position_grid),
        drawing_sizes=[list(size) for size in sizes],
        tie_word_embeddings=tied,
        architectures=[ShowO2ForConditionalGeneration.__name__],
        **ids,
    )


@torch.no_grad()
def _fill(model: ShowO2ForConditionalGeneration, source: Any, parts: PictureParts) -> None:
    """Copies what is given; rows of words that the language model lacks stay new."""
    given = {f"model.language_model.{name}": one for name, one in source.model.language_model.state_dict().items()}
    given["lm_head.weight"] = source.lm_head.weight
    given |= {f"model.visual.{name}": one for name, one in parts.semantic.items()}
    given |= {f"vae.{name}": one for name, one in parts.codec.state_dict().items()}
    own = model.state_dict()
    for name, weight in given.items():
        if name in ("lm_head.weight", "model.language_model.embed_tokens.weight"):
            own[name][: len(weight)].copy_(weight)
        else:
            own[name].copy_(weight)


def load_siglip(
    name: str, check_weights: bool = True
) -> tuple[dict[str, Any], dict[str, torch.Tensor], tuple[int, int]]:
    """The semantic path of a SigLIP: its configuration, weights by the names of our path, and rows and columns.

    As released its last layer is left out. Its patches of pixels are none of latents, so that layer stays new.

    Args:
        name: folder or Hub id.
        check_weights: whether to look for weights that are not finite.

    Raises:
        ValueError: if there is none, or it has one layer only.
    """
    model = load_model(SiglipVisionModel, name, check_weights, "SigLIP", dtype=torch.float32)
    config = model.config
    layers, side = config.num_hidden_layers - 1, config.image_size // config.patch_size
    if layers < 1:
        raise ValueError(f"The SigLIP '{name}' has one layer, but the last one is left out; give one of several.")
    settings = config.to_diff_dict()
    for key in ("architectures", "dtype", "transformers_version", "model_type"):
        settings.pop(key, None)
    weights: dict[str, torch.Tensor] = {}
    for key, tensor in model.state_dict().items():
        key = key.removeprefix("vision_model.")
        if key == "embeddings.position_embedding.weight":
            weights["position_embedding.weight"] = tensor
        elif key.startswith("encoder.layers."):
            number, _, rest = key.removeprefix("encoder.layers.").partition(".")
            if int(number) < layers:
                weights[f"semantic_layers.{number}.{rest}"] = tensor
    return {**settings, "num_hidden_layers": layers}, weights, (side, side)


def load_wan(name: str) -> tuple[Any, dict[str, Any]]:
    """The VAE of a pipeline of Wan2.1, and the `codec_config` that names it.

    Args:
        name: folder or Hub id of a diffusers pipeline whose `vae` is an `AutoencoderKLWan`.

    Raises:
        ValueError: if there is none.
        ImportError: without diffusers.
    """
    from ..image_codecs import make_codec

    make_codec({"type": "wan", "base_dim": 4, "num_res_blocks": 1})  # says at once if diffusers is missing
    from ..wan_codec import SETTINGS, WanCodec

    remedy = "give the folder or Hub id of a diffusers pipeline of Wan2.1"
    with reading_checkpoint(name, "VAE", remedy):
        codec = WanCodec.from_pretrained(name, subfolder="vae", torch_dtype=torch.float32)
    settings = {key: value for key, value in codec.config.items() if key in SETTINGS}
    return codec, {"type": "wan", **settings}
