"""The processor's output: a `BatchFeature` that never rounds the image tokenizer's pixels."""

from typing import Any

from transformers import BatchFeature

# Always lists (images of one batch may differ in size), and always float32: the image tokenizer runs in float32, and
# rounding its input to bfloat16 would change codes.
VQ_PIXEL_KEYS = (
    "source_pixel_values",
    "negative_source_pixel_values",
    "unprompted_source_pixel_values",
    "target_pixel_values",
)
# Lists as well; the codes of targets that are encoded already, None for those that come as pixels.
RAGGED_KEYS = (*VQ_PIXEL_KEYS, "target_image_tokens")


class WallarooBatchFeature(BatchFeature):
    """What `WallarooProcessor` returns; `.to(dtype=...)` moves the image tokenizer's pixels but keeps their dtype."""

    def to(self, *args: Any, **kwargs: Any) -> "WallarooBatchFeature":
        """Moves tensors to a device and casts floating ones, as `BatchFeature.to`, except for `RAGGED_KEYS`."""
        kept = {key: self.data[key] for key in RAGGED_KEYS if key in self.data}
        super().to(*args, **kwargs)
        device = kwargs.get("device", args[0] if args and isinstance(args[0], (str, int)) else None)
        if device is None and args and type(args[0]).__name__ == "device":
            device = args[0]
        if device is not None:
            kept = {
                key: [None if item is None else item.to(device=device) for item in value]
                for key, value in kept.items()
            }
        self.data.update(kept)
        return self
