"""Old names to new names. The only place that knows how the authors (and LlamaGen) spell things."""

import re

from ..modeling.parts import EDITING

# Released checkpoint -> ours, by prefix. The spelling mistakes are the released ones.
CHECKPOINT_PREFIXES = {
    "wallaroo.visual.": "model.visual.",
    "wallaroo.model.": "model.language_model.",
    "wallaroo.lm_head.": "lm_head.",
    "gen_input_adpater.": "model.generation_adapter.",
    "pixel_adapter.": "model.source_adapter.",
    "edit_input_adpater.": "model.edit_adapter.",
    "gen_image_head.": "generation_head.",
    "edit_image_head.": "edit_head.",
}
EDITING_PREFIXES = tuple(
    old for old, new in CHECKPOINT_PREFIXES.items() if new.removeprefix("model.") in EDITING.prefixes
)

# LlamaGen -> transformers' Janus VQ-VAE blocks, by pattern, applied in order.
_VQ_PATTERNS = (
    (re.compile(r"^encoder\.conv_blocks\.(\d+)\."), r"encoder.down.\1."),
    (re.compile(r"^decoder\.conv_blocks\.(\d+)\."), r"decoder.up.\1."),
    (re.compile(r"^((?:encoder\.down|decoder\.up)\.\d+)\.res\."), r"\1.block."),
    (re.compile(r"^(encoder|decoder)\.mid\.0\."), r"\1.mid.block_1."),
    (re.compile(r"^(encoder|decoder)\.mid\.1\."), r"\1.mid.attn_1."),
    (re.compile(r"^(encoder|decoder)\.mid\.2\."), r"\1.mid.block_2."),
)
_VQ_KNOWN = ("encoder.", "decoder.", "quantize.embedding.", "quant_conv.", "post_quant_conv.")
# A usage counter of LlamaGen's training loop, not a weight.
VQ_IGNORED = ("quantize.codebook_used",)
VQ_PREFIX = "model.vq_model."


def checkpoint_key(key: str) -> str | None:
    """Our name of a key of a released checkpoint, or None if it is unknown."""
    for old, new in CHECKPOINT_PREFIXES.items():
        if key.startswith(old):
            return new + key[len(old) :]
    return None


def vq_key(key: str) -> str | None:
    """Our name (inside `WallarooVQModel`) of a key of a LlamaGen tokenizer, or None if it is unknown."""
    if not key.startswith(_VQ_KNOWN):
        return None
    for pattern, replacement in _VQ_PATTERNS:
        key = pattern.sub(replacement, key)
    return key
