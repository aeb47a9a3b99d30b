"""The processor's output."""

from typing import ClassVar

from ...common.ragged_batch import RaggedBatchFeature

__all__ = ["HieraQueryBatchFeature"]


class HieraQueryBatchFeature(RaggedBatchFeature):
    """What [`HieraQueryProcessor`] returns."""

    ragged_keys = ("repaint_mask", "source_pixel_values")
    row_keys = ragged_keys
    fills: ClassVar[dict[str, int | None]] = {**RaggedBatchFeature.fills, "mm_token_type_ids": 0}
