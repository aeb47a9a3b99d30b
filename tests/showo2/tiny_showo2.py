"""A tiny Show-o2 with random weights and a linear codec: what most tests of generation use."""

from __future__ import annotations

from typing import Any

import torch

from wallaroo_hf.showo2 import ShowO2Config, ShowO2ForConditionalGeneration

IDS = {
    "bos_token_id": 50,
    "eos_token_id": 51,
    "vision_start_token_id": 52,
    "vision_end_token_id": 53,
    "image_token_id": 54,
    "video_token_id": 55,
    "pad_token_id": 56,
    "image_placeholder_token_id": 57,
    "video_start_token_id": 58,
    "video_end_token_id": 59,
}
BOS, EOS, START, END, IMAGE, VIDEO, PAD = (list(IDS.values()))[:7]


def tiny_showo2(seed: int = 0, attention: str = "sdpa", **changes: Any) -> ShowO2ForConditionalGeneration:
    """Weights large enough that tokens differ from each other and images matter.

    Args:
        seed: of the weights.
        attention: the attention's implementation.
        changes: of the configuration.
    """
    text = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048}
    vision = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    flow = {
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 12,
    }
    flow |= {"num_key_value_heads": 2}
    parts = {"text_config": text, "vision_config": vision, "flow_config": flow, "position_grid": [2, 2]}
    config = ShowO2Config(**{**parts, **IDS, "codec_config": {"type": "linear"}, **changes})
    config._attn_implementation = attention
    torch.manual_seed(seed)
    model = ShowO2ForConditionalGeneration(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("vae."):
                scale = 0.5 if parameter.dim() > 1 else 0.1
                noise = torch.randn(parameter.shape, generator=generator) * scale / parameter.shape[-1] ** 0.5
                parameter.copy_(noise * 3 if parameter.dim() > 1 else parameter + noise)
    return model


def image_ids(tokens: int, token: int = IMAGE) -> list[int]:
    """An image of so many tokens in a prompt."""
    return [START, *[token] * (tokens + 1), END]


def left_padded(*rows: list[int]) -> dict[str, torch.Tensor]:
    """Rows of ids as a batch."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[PAD] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}
