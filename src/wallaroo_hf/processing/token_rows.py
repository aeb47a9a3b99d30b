"""Texts to equally long rows of token ids."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..layout.special_tokens import IMAGE_PAD, VISION_END, VISION_START

# `input_ids` and, in training, `labels` of one row, not padded yet.
TokenRow = dict[str, list[int]]


def expand_vision(text: str, lengths: list[int]) -> str:
    """Repeats each `<|image_pad|>` of a text as often as its image has NaViT tokens."""
    pieces = text.split(IMAGE_PAD)
    expanded = [pieces[0]]
    for length, piece in zip(lengths, pieces[1:], strict=True):
        expanded += [IMAGE_PAD * length, piece]
    return "".join(expanded)


def tokenize(
    tokenizer: Any,
    texts: list[str],
    text_kwargs: dict[str, Any],
    label_spans: Callable[[str], list[tuple[int, int]]] | None,
) -> list[TokenRow]:
    """Token ids of each text, unpadded, and its labels if `label_spans` (text -> character ranges) is given.

    Args:
        tokenizer: the checkpoint's.
        texts: rendered, with as many placeholders as images need.
        text_kwargs: the tokenizer's options; those about padding are for [`pad`].
        label_spans: ranges of characters of a text that are learned.
    """
    handled_later = ("padding", "padding_side", "max_length", "pad_to_multiple_of", "return_tensors")
    options = {key: value for key, value in text_kwargs.items() if key not in handled_later}
    options.pop("return_mm_token_type_ids", None)
    options.pop("return_text_replacement_offsets", None)
    if options.get("truncation"):
        options["max_length"] = text_kwargs.get("max_length")
    rows = []
    for text in texts:
        encoded = tokenizer(text, return_offsets_mapping=label_spans is not None, **options)
        row = {"input_ids": list(encoded["input_ids"])}
        if label_spans is not None:
            spans = label_spans(text)
            row["labels"] = [
                token if any(start <= offset[0] and offset[1] <= end for start, end in spans) else -100
                for token, offset in zip(row["input_ids"], encoded["offset_mapping"])
            ]
        rows.append(row)
    return rows


def pad(tokenizer: Any, rows: Sequence[TokenRow], text_kwargs: dict[str, Any]) -> dict[str, np.ndarray]:
    """Pads rows to one length: `input_ids`, `attention_mask`, `mm_token_type_ids` and `labels` if present.

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
        fill = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0, "labels": -100}
        for key, values in masked.items():
            padding = [fill[key]] * missing
            columns.setdefault(key, []).append(padding + values if left else values + padding)
    arrays = {key: np.array(values, dtype=np.int64) for key, values in columns.items()}
    arrays["mm_token_type_ids"] = _mm_token_type_ids(tokenizer, arrays["input_ids"])
    return arrays


def _mm_token_type_ids(tokenizer: Any, input_ids: np.ndarray) -> np.ndarray:
    """1 for NaViT placeholders (those of the vision block), 0 for all else, the source block included."""
    image, start, end = tokenizer.convert_tokens_to_ids([IMAGE_PAD, VISION_START, VISION_END])
    inside = (input_ids == start).cumsum(axis=-1) > (input_ids == end).cumsum(axis=-1)
    return ((input_ids == image) & inside).astype(np.int64)
