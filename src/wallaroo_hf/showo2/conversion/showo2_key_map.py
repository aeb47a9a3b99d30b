"""Old names to new names of Show-o2. The only place that knows how its authors spell things."""

import re

__all__ = ["CHECKPOINT_PREFIXES", "CODEC_PREFIX", "HEAD", "TABLE", "checkpoint_key"]

# Released checkpoint -> ours, by prefix.
CHECKPOINT_PREFIXES = {
    "showo.model.": "model.language_model.",
    "showo.lm_head.": "lm_head.",
    "image_embedder_und.proj.": "model.visual.semantic_patch.",
    "position_embedding.": "model.visual.position_embedding.",
    "und_trans.layers.": "model.visual.semantic_layers.",
    "image_embedder_gen.proj.": "model.visual.projector_patch.",
    "fusion_proj.0.": "model.visual.fusion.norm.",
    "fusion_proj.1.": "model.visual.fusion.linear_1.",
    "fusion_proj.3.": "model.visual.fusion.linear_2.",
    "time_embed.mlp.0.": "model.time_embedding.linear_1.",
    "time_embed.mlp.2.": "model.time_embedding.linear_2.",
    "time_embed_proj.": "model.time_projection.",
    "diff_proj.0.": "flow_head.input_projection.linear_1.",
    "diff_proj.2.": "flow_head.input_projection.linear_2.",
    "diffusion_head_a.": "flow_head.layers.",
    "diffusion_head_b.norm_final.": "flow_head.norm.",
    "diffusion_head_b.adaLN_modulation.1.": "flow_head.modulation.",
    "diffusion_head_b.linear.": "flow_head.output.",
}
_MODULATION = re.compile(r"^(flow_head\.layers\.\d+)\.adaLN_modulation\.1\.")
CODEC_PREFIX = "vae."
# Ours: of the language model, which may be tied.
TABLE, HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"


def checkpoint_key(key: str) -> str | None:
    """Our name of a key of a released checkpoint, or None if it is unknown."""
    for old, new in CHECKPOINT_PREFIXES.items():
        if key.startswith(old):
            return _MODULATION.sub(r"\1.modulation.", new + key[len(old) :])
    return None
