"""The processor's output."""

from ...common.ragged_batch import RaggedBatchFeature

__all__ = ["ShowO2BatchFeature"]


class ShowO2BatchFeature(RaggedBatchFeature):
    """What [`ShowO2Processor`] returns; `.to(dtype=...)` moves pixels but keeps their dtype, for the codec runs in float32."""

    ragged_keys = ("pixel_values",)
