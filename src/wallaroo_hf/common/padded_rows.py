"""Rows of token ids to equally long ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["TokenRow", "pad_rows", "tokenizer_options"]

# `input_ids` and, in training, `labels` of one row, not padded yet.
TokenRow = dict[str, list[int]]
# What is done here, or by nobody, when rows are padded.
_HANDLED_LATER = (
    *("padding", "padding_side", "max_length", "pad_to_multiple_of", "return_tensors", "return_mm_token_type_ids"),
    "return_text_replacement_offsets",
)


def tokenizer_options(text_kwargs: dict[str, Any]) -> dict[str, Any]:
    """The options of a tokenizer without those about padding, which are for [`pad_rows`]."""
    options = {key: value for key, value in text_kwargs.items() if key not in _HANDLED_LATER}
    if options.get("truncation"):
        options["max_length"] = text_kwargs.get("max_length")
    return options


def pad_rows(pad_token_id: int, rows: Sequence[TokenRow], text_kwargs: dict[str, Any]) -> dict[str, np.ndarray]:
    """Pads rows to one length: `input_ids`, `attention_mask` and `labels` if present, int64 `(B, T)`.

    Args:
        pad_token_id: of `input_ids`.
        rows: unpadded.
        text_kwargs: the tokenizer's options, of which those about padding count.

    Raises:
        ValueError: if `padding="max_length"` and a row is longer than `max_length`.
    """
    longest = max(len(row["input_ids"]) for row in rows)
    length = longest
    if text_kwargs.get("padding") == "max_length" and text_kwargs.get("max_length"):
        length = text_kwargs["max_length"]
        if longest > length:
            raise ValueError(
                f"A row has {longest} tokens, but `max_length` is {length}; raise it, shorten the prompt or use a "
                "smaller image."
            )
    multiple = text_kwargs.get("pad_to_multiple_of")
    if multiple:
        length = -(-length // multiple) * multiple
    if not text_kwargs.get("padding") and any(len(row["input_ids"]) != length for row in rows):
        raise ValueError("The rows differ in length and `padding` is off; pass padding=True.")
    left = text_kwargs.get("padding_side", "left") == "left"
    columns: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": []}
    for row in rows:
        missing = length - len(row["input_ids"])
        masked = row | {"attention_mask": [1] * len(row["input_ids"])}
        fill = {"input_ids": pad_token_id, "attention_mask": 0, "labels": -100}
        for key, values in masked.items():
            padding = [fill[key]] * missing
            columns.setdefault(key, []).append(padding + values if left else values + padding)
    return {key: np.array(values, dtype=np.int64) for key, values in columns.items()}
