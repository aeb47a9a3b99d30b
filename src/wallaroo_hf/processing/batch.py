"""The processor's output: a `BatchFeature` that never rounds the image tokenizer's pixels."""

from typing import ClassVar

from ..common.ragged_batch import RaggedBatchFeature

# Always lists (images of one batch may differ in size), and always float32: the image tokenizer runs in float32, and
# rounding its input to bfloat16 would change codes.
VQ_PIXEL_KEYS = (
    "source_pixel_values",
    "negative_source_pixel_values",
    "unprompted_source_pixel_values",
    "target_pixel_values",
)
# Lists with one entry per row, None for rows without.
ROW_KEYS = ("repaint_mask",)
# Lists as well; the codes of targets that are encoded already, None for those that come as pixels.
RAGGED_KEYS = (*VQ_PIXEL_KEYS, "target_image_tokens", *ROW_KEYS)


class WallarooBatchFeature(RaggedBatchFeature):
    """What `WallarooProcessor` returns; `.to(dtype=...)` moves the image tokenizer's pixels but keeps their dtype."""

    ragged_keys = RAGGED_KEYS
    row_keys = ROW_KEYS
    prefixes = ("negative_", "unprompted_")
    fills: ClassVar[dict[str, int | None]] = {**RaggedBatchFeature.fills, "mm_token_type_ids": 0}
