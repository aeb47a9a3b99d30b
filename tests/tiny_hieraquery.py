"""Tiny HieraQuery models."""

from typing import Any

import torch

from wallaroo_hf.hieraquery import HieraQueryConfig, HieraQueryForConditionalGeneration

SANA = {
    "_class_name": "SanaTransformer2DModel",
    **{"in_channels": 3, "out_channels": 3, "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 8},
    **{"num_cross_attention_heads": 2, "cross_attention_head_dim": 8, "cross_attention_dim": 16},
    **{"caption_channels": 24, "sample_size": 16, "patch_size": 4, "interpolation_scale": 1},
}
SD3 = {
    "_class_name": "SD3Transformer2DModel",
    **{"in_channels": 3, "out_channels": 3, "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 8},
    **{"joint_attention_dim": 24, "caption_projection_dim": 16, "pooled_projection_dim": 12},
    **{"sample_size": 16, "patch_size": 4, "pos_embed_max_size": 8},
}
IMAGE_TOKEN = 60
MLLM = {
    "text_config": {
        **{"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2},
        **{"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 256},
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    },
    "vision_config": {
        **{"depth": 1, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": 32},
        **{"patch_size": 4, "window_size": 16, "fullatt_block_indexes": [0]},
    },
    **{"image_token_id": IMAGE_TOKEN, "video_token_id": 61, "vision_start_token_id": 62, "vision_end_token_id": 63},
}
CONNECTOR = {
    **{"vocab_size": 1, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1},
    **{"num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": None},
}
SCALES = [{"query_grid": [1, 1], "factor": 0.5}, {"query_grid": [2, 2], "factor": 1.0}]


def tiny_config(tied: bool = True, **changes: Any) -> HieraQueryConfig:
    settings: dict[str, Any] = {
        "mllm_config": {**MLLM, "tie_word_embeddings": tied},
        "connector_config": CONNECTOR,
        "dit": SANA,
        "codec": {"_class_name": "pixels"},
        **{"scales": SCALES, "size": [16, 16], "alignment_width": 16, "alignment_layer": 1},
    }
    return HieraQueryConfig(**(settings | changes))


def tiny_model(seed: int = 0, tied: bool = True, **changes: Any) -> HieraQueryForConditionalGeneration:
    torch.manual_seed(seed)
    return HieraQueryForConditionalGeneration(tiny_config(tied, **changes)).eval()


def tiny_batch() -> dict[str, torch.Tensor]:
    """A prompt of five and one of three tokens, padded on the left."""
    ids = torch.tensor([[3, 4, 5, 6, 7], [0, 0, 8, 9, 10]])
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}
