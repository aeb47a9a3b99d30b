"""A processor's output: a `BatchFeature` with lists of pictures of different sizes, which are never rounded."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from transformers import BatchFeature

__all__ = ["RaggedBatchFeature"]


class RaggedBatchFeature(BatchFeature):
    """`.to(dtype=...)` moves what is in lists but keeps its dtype.

    Attributes:
        ragged_keys: names of lists, with one entry per picture; image codecs run in float32, whatever the model's dtype.
        row_keys: those of them with one entry per row, None for rows without.
        exact_keys: names of tensors that are moved, but never rounded: positions are made of them.
        prefixes: of the guidance branches beside the row's own; their tensors have the same names behind it.
        fills: tensors `(B, T)` and what pads them; None = the tokenizer's own.
    """

    ragged_keys: ClassVar[tuple[str, ...]] = ()
    row_keys: ClassVar[tuple[str, ...]] = ()
    exact_keys: ClassVar[tuple[str, ...]] = ("second_per_grid_ts",)
    prefixes: ClassVar[tuple[str, ...]] = ("negative_",)
    fills: ClassVar[dict[str, int | None]] = {"input_ids": None, "attention_mask": 0, "labels": -100}

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Moves tensors to a device and casts floating ones, as `BatchFeature.to`, except for the keys named above."""
        kept = {key: self.data[key] for key in self.ragged_keys if key in self.data}
        exact = {key: self.data[key] for key in self.exact_keys if hasattr(self.data.get(key), "to")}
        super().to(*args, **kwargs)
        device = kwargs.get("device", args[0] if args and isinstance(args[0], (str, int)) else None)
        if device is None and args and type(args[0]).__name__ == "device":
            device = args[0]
        if device is not None:
            kept = {
                key: [None if item is None else item.to(device=device) for item in value]
                for key, value in kept.items()
            }
            exact = {key: value.to(device=device) for key, value in exact.items()}
        self.data.update(kept | exact)
        return self

    @classmethod
    def of_arrays(cls, data: dict[str, Any], tensor_type: Any) -> Self:
        """Arrays as tensors of a type; None = lists of whole numbers, and arrays of pixels.

        Args:
            data: by name; `ragged_keys` hold lists of arrays or None.
            tensor_type: as `return_tensors` says.
        """
        ragged = {key: data.pop(key) for key in cls.ragged_keys if key in data}
        if tensor_type is None:  # rows of different lengths are lists already
            data = {
                key: value.tolist() if isinstance(value, np.ndarray) and value.dtype == np.int64 else value
                for key, value in data.items()
            }
        batch = cls(data, tensor_type=tensor_type)
        for key, arrays in ragged.items():
            batch[key] = (
                arrays
                if tensor_type is None
                else [None if array is None else cls({key: array}, tensor_type=tensor_type)[key] for array in arrays]
            )
        return batch

    @classmethod
    def join(cls, rows: Sequence[Self], pad_token_id: int) -> Self:
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
            if name in cls.row_keys:
                values = [row[name] if name in row else [None] * len(row["input_ids"]) for row in rows]
            prefix, plain = cls._split_name(name)
            if plain in cls.fills:
                fill = cls.fills[plain]
                values = [_pad_left(value, widths[prefix], pad_token_id if fill is None else fill) for value in values]
            joined[name] = [one for value in values for one in value] if name in cls.ragged_keys else torch.cat(values)
        return cls(joined)

    @classmethod
    def _split_name(cls, name: str) -> tuple[str, str]:
        prefix = next((one for one in cls.prefixes if name.startswith(one)), "")
        return prefix, name.removeprefix(prefix)


def _pad_left(value: torch.Tensor, width: int, fill: int) -> torch.Tensor:
    return torch.nn.functional.pad(value, (width - value.shape[1], 0), value=fill)
