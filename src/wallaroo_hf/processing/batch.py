"""The processor's output: a `BatchFeature` that never rounds the image tokenizer's pixels."""

from collections.abc import Sequence
from typing import Any

import torch
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
_PADDING = {"input_ids": 0, "attention_mask": 0, "mm_token_type_ids": 0, "labels": -100}


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

    @classmethod
    def join(cls, rows: Sequence["WallarooBatchFeature"], pad_token_id: int) -> "WallarooBatchFeature":
        """Batches of one mode, with tensors, as one batch: padded on the left, their images one behind the other.

        Args:
            rows: at least one.
            pad_token_id: of `input_ids`.

        Raises:
            ValueError: if some have a guidance branch that others lack.
        """
        prefixes = {name.removesuffix("input_ids") for row in rows for name in row if name.endswith("input_ids")}
        lacking = sorted(prefix for prefix in prefixes for row in rows if f"{prefix}input_ids" not in row)
        if lacking:
            raise ValueError(f"Some rows have `{lacking[0]}input_ids` and others have not; prepare them alike.")
        widths = {prefix: max(row[f"{prefix}input_ids"].shape[1] for row in rows) for prefix in prefixes}
        joined: dict[str, Any] = {}
        for name in dict.fromkeys(name for row in rows for name in row):
            values = [row[name] for row in rows if name in row]
            prefix, plain = _split_name(name)
            if plain in _PADDING:
                fill = pad_token_id if plain == "input_ids" else _PADDING[plain]
                values = [_pad_left(value, widths[prefix], fill) for value in values]
            joined[name] = [item for value in values for item in value] if name in RAGGED_KEYS else torch.cat(values)
        return cls(joined)


def _split_name(name: str) -> tuple[str, str]:
    prefix = next((one for one in ("negative_", "unprompted_") if name.startswith(one)), "")
    return prefix, name.removeprefix(prefix)


def _pad_left(value: torch.Tensor, width: int, fill: int) -> torch.Tensor:
    return torch.nn.functional.pad(value, (width - value.shape[1], 0), value=fill)
