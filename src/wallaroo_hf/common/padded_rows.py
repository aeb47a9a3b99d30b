"""Rows of token ids to equally long ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["TokenRow", "pad_rows", "refuse_cut_images", "tokenizer_options"]

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


def refuse_cut_images(row: int, kept: int, needed: int, max_length: Any) -> None:
    """Refuses a row of which truncation would keep a part of an image, or none of it.

    Args:
        row: its number, from 0.
        kept: image tokens that are left.
        needed: image tokens that it had.
        max_length: what it was cut to; None = what the tokenizer says.

    Raises:
        ValueError: if there are fewer.
    """
    if kept < needed:
        length = "" if max_length is None else f" to {max_length} tokens"
        raise ValueError(
            f"`truncation`{length} would leave {kept} of the {needed} image tokens of row {row}; raise `max_length`, "
            "shorten the prompt or show a smaller image."
        )


def pad_rows(pad_token_id: int, rows: Sequence[TokenRow], text_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Pads rows to one length: `input_ids`, `attention_mask` and `labels` if present, int64 `(B, T)`.

    With `padding=False` rows of different lengths stay as they are: lists of lists, as tokenizers return them.

    Args:
        pad_token_id: of `input_ids`.
        rows: unpadded.
        text_kwargs: the tokenizer's options, of which those about padding count.

    Raises:
        ValueError: if `padding="max_length"` and a row is longer than `max_length`, and if rows that stay as they are shall
            become a tensor.
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
    if multiple and text_kwargs.get("padding"):
        length = -(-length // multiple) * multiple
    if not text_kwargs.get("padding") and any(len(row["input_ids"]) != length for row in rows):
        if text_kwargs.get("return_tensors") is not None:
            raise ValueError(
                "The rows differ in length and `padding` is off, so they make no tensor; pass padding=True."
            )
        masks = [[1] * len(row["input_ids"]) for row in rows]
        return {name: [row[name] for row in rows] for name in rows[0]} | {"attention_mask": masks}
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
