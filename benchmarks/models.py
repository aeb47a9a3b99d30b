"""What is measured: presets, randomly initialised models of equal size, and prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import JanusConfig, JanusForConditionalGeneration, LlamaConfig
from transformers.models.janus import JanusVisionConfig, JanusVQVAEConfig

from wallaroo_hf import WallarooConfig, WallarooForConditionalGeneration

# Ids of special tokens, counted back from the end of the vocabulary; everything before them is ordinary text.
_SPECIAL = (
    "image_token_id",
    "video_token_id",
    "vision_start_token_id",
    "vision_end_token_id",
    "generate_start_token_id",
    "generate_end_token_id",
    "pixel_start_token_id",
    "pixel_end_token_id",
    "end_of_line_token_id",
    "generate_image_token_id",
)
_NUM_RESERVED = len(_SPECIAL) + 2  # and padding and end of text


@dataclass(frozen=True)
class Preset:
    """One configuration to measure.

    Attributes:
        hidden_size, num_layers, num_heads, num_kv_heads, intermediate_size, vocab_size: the decoder's shape.
        mrope_section: sums to half a head's size.
        codebook_size: image codes.
        dtype: of everything but the image tokenizer.
        images: batch sizes to time.
        contexts: prompt lengths to time; the longer ones with one image only.
        steps: codes per timed run (64 codes = one refill of noise).
        rounds: timed runs per variant, interleaved.
        grid: rows and columns of the whole image.
        whole_images: batch sizes to time whole images with.
        windows: tokens per forward to time windows with.
        window_images: batch sizes to time windows with.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    intermediate_size: int
    vocab_size: int
    mrope_section: tuple[int, int, int]
    codebook_size: int = 16384
    dtype: torch.dtype = torch.float32
    images: tuple[int, ...] = (1, 8)
    contexts: tuple[int, ...] = (60, 1055)
    steps: int = 64
    rounds: int = 5
    grid: tuple[int, int] = (32, 32)
    whole_images: tuple[int, ...] = (1,)
    windows: tuple[int, ...] = (2, 4, 8, 16, 32)
    window_images: tuple[int, ...] = (1,)


PRESETS = {
    # seconds: shows that the script runs
    "micro": Preset(
        64, 2, 4, 2, 128, 512, (2, 3, 3), codebook_size=256, images=(1, 2), contexts=(20, 40), steps=8, rounds=2,
        grid=(4, 6), windows=(4,), window_images=(1, 2),
    ),
    # a body of 23 M weights whose text head is 9 % of it, as in the 7B model (8 %)
    "cpu": Preset(512, 6, 8, 2, 2048, 4096, (8, 12, 12)),
    # the released model's shape
    "h200": Preset(
        3584, 28, 28, 4, 18944, 152064, (16, 24, 24), dtype=torch.bfloat16, images=(1, 8, 32), steps=128, rounds=3,
        whole_images=(1, 8, 32), windows=(2, 4, 8, 16, 32, 64), window_images=(1, 4, 8),
    ),
}  # fmt: skip


def build_wallaroo(preset: Preset, device: torch.device, seed: int = 0) -> WallarooForConditionalGeneration:
    """A randomly initialised model; the vision tower, which drawing from text never runs, is as small as it can be."""
    ids = {name: preset.vocab_size - len(_SPECIAL) + index for index, name in enumerate(_SPECIAL)}
    pad, end = preset.vocab_size - _NUM_RESERVED, preset.vocab_size - _NUM_RESERVED + 1
    config = WallarooConfig(
        text_config={
            "hidden_size": preset.hidden_size,
            "num_hidden_layers": preset.num_layers,
            "num_attention_heads": preset.num_heads,
            "num_key_value_heads": preset.num_kv_heads,
            "intermediate_size": preset.intermediate_size,
            "vocab_size": preset.vocab_size,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": list(preset.mrope_section),
            },
            "max_position_embeddings": 8192,
            "bos_token_id": pad,
            "eos_token_id": end,
            "pad_token_id": pad,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "num_heads": 2,
            "intermediate_size": 32,
            "out_hidden_size": preset.hidden_size,
        },
        vq_config={"codebook_size": preset.codebook_size, "base_channels": 32, "num_res_blocks": 1},
        has_editing=False,
        tie_word_embeddings=False,
        **ids,
    )
    torch.manual_seed(seed)
    with device:
        model = WallarooForConditionalGeneration(config)
    model.generation_config.pad_token_id = pad
    return model.to(device=device, dtype=preset.dtype).eval()  # the image tokenizer stays float32


def build_janus(preset: Preset, device: torch.device, seed: int = 0) -> JanusForConditionalGeneration:
    """transformers' Janus with a decoder, image head and codebook of the same size."""
    config = JanusConfig(
        text_config=LlamaConfig(
            hidden_size=preset.hidden_size,
            num_hidden_layers=preset.num_layers,
            num_attention_heads=preset.num_heads,
            num_key_value_heads=preset.num_kv_heads,
            intermediate_size=preset.intermediate_size,
            vocab_size=preset.vocab_size,
            max_position_embeddings=8192,
        ),
        vision_config=JanusVisionConfig(
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            projection_dim=preset.hidden_size,
            image_size=64,
        ),
        vq_config=JanusVQVAEConfig(
            num_embeddings=preset.codebook_size,
            base_channels=32,
            num_res_blocks=1,
            projection_dim=preset.hidden_size,
            image_token_embed_dim=preset.hidden_size,
        ),
        image_token_id=preset.vocab_size - 1,
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    with device:
        model = JanusForConditionalGeneration(config)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "generation_kwargs": {"boi_token_id": 3}}
    for name, value in ids.items():
        setattr(model.generation_config, name, value)
    return model.to(device=device, dtype=preset.dtype).eval()


def prompts(model: WallarooForConditionalGeneration, num_images: int, length: int, grid: tuple[int, int]) -> dict:
    """What the processor would give: conditional prompts without padding, unconditional ones with a third of 60."""
    config = model.config
    generator = torch.Generator().manual_seed(length)
    num_text = config.text_config.vocab_size - _NUM_RESERVED
    padding = min(20, length // 3)

    def ids(rows: int) -> torch.Tensor:
        tokens = torch.randint(num_text, (rows, length), generator=generator)
        tokens[:, -1] = config.generate_start_token_id
        return tokens

    negative = ids(1).repeat(num_images, 1)
    negative[:, :padding] = config.text_config.pad_token_id
    negative_mask = torch.ones_like(negative)
    negative_mask[:, :padding] = 0
    tensors = {
        "input_ids": ids(num_images),
        "attention_mask": torch.ones(num_images, length, dtype=torch.long),
        "negative_input_ids": negative,
        "negative_attention_mask": negative_mask,
    }
    device = model.device
    return {name: tensor.to(device) for name, tensor in tensors.items()} | {
        "target_grid_hw": torch.tensor([grid] * num_images)
    }


def parameters(*modules: Any) -> int:
    """Number of weights."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def sizes(model: WallarooForConditionalGeneration, janus: JanusForConditionalGeneration | None) -> dict[str, Any]:
    """Number of weights of the parts that matter, ours and Janus's."""
    inner = model.model
    ours = {
        "body": parameters(inner.language_model.layers, inner.language_model.norm),
        "image_head": parameters(model.generation_head),
        "adapter": parameters(inner.generation_adapter),
        "lm_head": parameters(model.lm_head),
    }
    result: dict[str, Any] = {"wallaroo": ours, "lm_head_share_of_body": ours["lm_head"] / ours["body"]}
    if janus is not None:
        theirs = {
            "body": parameters(janus.model.language_model.layers, janus.model.language_model.norm),
            "image_head": parameters(janus.model.generation_head),
            "adapter": parameters(janus.model.generation_aligner),
        }
        result["janus"] = theirs
        result["janus_body_over_ours"] = theirs["body"] / ours["body"]
    return result
