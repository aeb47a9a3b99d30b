"""The authors' tiny model with its golden data, loaded by a key map of its own until the shared helper is there."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import torch
from safetensors.torch import load_file

from wallaroo_hf.showo2 import ShowO2Config, ShowO2ForConditionalGeneration

ROOT = Path(__file__).resolve().parents[4] / "shared" / "reference_showo2"
ROOT = Path(os.environ.get("WALLAROO_REFERENCE_SHOWO2", ROOT)) / "tiny_a"
_MAP = {
    "showo.model.": "model.language_model.",
    "showo.lm_head": "lm_head",
    "image_embedder_und.proj": "model.visual.semantic_patch",
    "image_embedder_gen.proj": "model.visual.projector_patch",
    "position_embedding": "model.visual.position_embedding",
    "und_trans.layers": "model.visual.semantic_layers",
    "fusion_proj.0": "model.visual.fusion.norm",
    "fusion_proj.1": "model.visual.fusion.linear_1",
    "fusion_proj.3": "model.visual.fusion.linear_2",
    "time_embed.mlp.0": "model.time_embedding.linear_1",
    "time_embed.mlp.2": "model.time_embedding.linear_2",
    "time_embed_proj": "model.time_projection",
    "diff_proj.0": "flow_head.input_projection.linear_1",
    "diff_proj.2": "flow_head.input_projection.linear_2",
    "diffusion_head_a": "flow_head.layers",
    "diffusion_head_b.norm_final": "flow_head.norm",
    "diffusion_head_b.linear": "flow_head.output",
    "diffusion_head_b.adaLN_modulation.1": "flow_head.modulation",
}


def golden(name: str) -> dict[str, torch.Tensor]:
    """A case's tensors."""
    return load_file(ROOT / f"{name}.safetensors")


@functools.cache
def golden_model() -> ShowO2ForConditionalGeneration:
    """The authors' tiny weights in our model; shared, so not to be changed."""
    read = {path.stem: json.loads(path.read_text()) for path in (ROOT / "checkpoint").glob("*.json")}
    ids, text, vision = read["token_ids"], read["llm_config"], read["siglip_config"]["vision_config"]
    text = {name: value for name, value in text.items() if name not in ("model_type", "transformers_version")}
    text = {**text, "vocab_size": ids["llm_vocab_size"]}
    text.pop("rope_scaling", None)
    vision = {name: value for name, value in vision.items() if name not in ("model_type", "transformers_version")}
    flow = {"hidden_size": 64, "head_dim": 16, "intermediate_size": 128, "num_attention_heads": 4}
    config = ShowO2Config(
        text_config=text,
        vision_config={**vision, "num_hidden_layers": vision["num_hidden_layers"] - 1},
        flow_config={**flow, "num_key_value_heads": 2, "num_hidden_layers": 3},
        position_grid=[5, 5],
        codec_config={"type": "linear"},
        bos_token_id=ids["bos_id"],
        eos_token_id=ids["eos_id"],
        vision_start_token_id=ids["boi_id"],
        vision_end_token_id=ids["eoi_id"],
        image_token_id=ids["img_pad_id"],
        video_token_id=ids["vid_pad_id"],
        pad_token_id=ids["pad_id"],
        image_placeholder_token_id=ids["img_id"],
        video_start_token_id=ids["bov_id"],
        video_end_token_id=ids["eov_id"],
    )
    model = ShowO2ForConditionalGeneration(config).eval()
    weights = torch.load(ROOT / "checkpoint" / "pytorch_model.bin", weights_only=True)
    renamed = {}
    for name, value in weights.items():
        old = next(old for old in _MAP if name.startswith(old))
        renamed[(_MAP[old] + name[len(old) :]).replace("adaLN_modulation.1", "modulation")] = value
    missing = model.load_state_dict(renamed, strict=False).missing_keys
    assert all(name.startswith("vae.") for name in missing)
    return model
