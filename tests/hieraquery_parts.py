"""Folders that HieraQuery is built from, tiny, as transformers' and diffusers' own `save_pretrained` write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import GenerationConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from small_hieraquery import small_config, small_tokenizer

SCALES = [{"query_grid": [1, 1], "factor": 0.5}, {"query_grid": [2, 2], "factor": 1.0}]
_KL = {
    **{"block_out_channels": [8, 8], "down_block_types": ["DownEncoderBlock2D"] * 2, "norm_num_groups": 4},
    **{"up_block_types": ["UpDecoderBlock2D"] * 2, "latent_channels": 4, "layers_per_block": 1},
    **{"scaling_factor": 1.5305, "shift_factor": 0.0609},
}
_DC = {
    **{"latent_channels": 4, "attention_head_dim": 4, "scaling_factor": 0.41},
    **{"encoder_block_types": ["ResBlock"] * 2, "decoder_block_types": ["ResBlock"] * 2},
    **{"encoder_block_out_channels": [8, 8], "decoder_block_out_channels": [8, 8]},
    **{"encoder_layers_per_block": [1, 1], "decoder_layers_per_block": [1, 1]},
    **{"encoder_qkv_multiscales": [[], []], "decoder_qkv_multiscales": [[], []]},
    **{"decoder_norm_types": "rms_norm", "decoder_act_fns": "silu"},
}
SD3 = {
    **{"in_channels": 4, "out_channels": 4, "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 8},
    **{"joint_attention_dim": 24, "caption_projection_dim": 16, "pooled_projection_dim": 12},
    **{"sample_size": 16, "patch_size": 2, "pos_embed_max_size": 8},
}
SANA = {
    **{"in_channels": 4, "out_channels": 4, "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 8},
    **{"num_cross_attention_heads": 2, "cross_attention_head_dim": 8, "cross_attention_dim": 16},
    **{"caption_channels": 24, "sample_size": 16, "patch_size": 1, "interpolation_scale": 1},
}


def save_qwen(folder: Path, tied: bool = True, shard: str = "5GB", seed: int = 0) -> Path:
    """A Qwen2.5-VL.

    Args:
        folder: to write.
        tied: whether its head is its table of words.
        shard: largest weight file.
        seed: of its weights.
    """
    tokenizer = small_tokenizer()
    config = small_config(tokenizer).mllm_config
    config.tie_word_embeddings = tied
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    ids = {name: getattr(config.text_config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(**ids, do_sample=True, temperature=0.5, repetition_penalty=1.05)
    model.save_pretrained(folder, max_shard_size=shard)
    tokenizer.save_pretrained(folder)
    size = {"shortest_edge": 64, "longest_edge": 1024}
    Qwen2VLImageProcessorPil(patch_size=config.vision_config.patch_size, size=size).save_pretrained(folder)
    return folder


def save_sd3(folder: Path, **options: Any) -> Path:
    """An SD3 pipeline without text encoders.

    Args:
        folder: to write.
        options: of `save_pretrained`.
    """
    torch.manual_seed(1)
    pipeline = diffusers.StableDiffusion3Pipeline(
        transformer=diffusers.SD3Transformer2DModel(**SD3),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=diffusers.AutoencoderKL(**_KL),
        **dict.fromkeys([f"{what}{number}" for what in ("text_encoder", "tokenizer") for number in ("", "_2", "_3")]),
    )
    pipeline.save_pretrained(folder, **options)
    return folder


def save_sana(folder: Path, **options: Any) -> Path:
    """A Sana pipeline without text encoder; see [`save_sd3`]."""
    torch.manual_seed(1)
    scheduler = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    pipeline = diffusers.SanaPipeline(
        transformer=diffusers.SanaTransformer2DModel(**SANA),
        scheduler=diffusers.DPMSolverMultistepScheduler(**scheduler),
        vae=diffusers.AutoencoderDC(**_DC),
        text_encoder=None,
        tokenizer=None,
    )
    pipeline.save_pretrained(folder, **options)
    return folder


def save_connector(folder: Path) -> Path:
    """A Qwen2, with a table of words and a head."""
    torch.manual_seed(2)
    Qwen2ForCausalLM(
        Qwen2Config(
            **{"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2},
            **{"num_attention_heads": 2, "num_key_value_heads": 1, "rope_theta": 1000000.0},
        )
    ).save_pretrained(folder)
    return folder
