"""Texts to equally long rows of token ids."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..common.chat_form import expand_vision
from ..common.padded_rows import TokenRow, pad_rows, refuse_cut_images, tokenizer_options
from ..layout.special_tokens import IMAGE_PAD, PIXEL_END, PIXEL_START, VIDEO_PAD

__all__ = ["TokenRow", "expand_vision", "pad", "tokenize"]


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

    Raises:
        ValueError: if truncation would cut an image.
    """
    image, video = tokenizer.convert_tokens_to_ids([IMAGE_PAD, VIDEO_PAD])
    options = tokenizer_options(text_kwargs)
    rows = []
    for number, text in enumerate(texts):
        encoded = tokenizer(text, return_offsets_mapping=label_spans is not None, **options)
        row = {"input_ids": list(encoded["input_ids"])}
        if options.get("truncation"):
            kept = row["input_ids"].count(image) + row["input_ids"].count(video)
            needed = text.count(IMAGE_PAD) + text.count(VIDEO_PAD)
            refuse_cut_images(number, kept, needed, options["max_length"])
        if label_spans is not None:
            spans = label_spans(text)
            row["labels"] = [
                token if any(start <= offset[0] and offset[1] <= end for start, end in spans) else -100
                for token, offset in zip(row["input_ids"], encoded["offset_mapping"])
            ]
        rows.append(row)
    return rows


def pad(tokenizer: Any, rows: Sequence[TokenRow], text_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Pads rows to one length, see [`wallaroo_hf.common.padded_rows.pad_rows`], and adds `mm_token_type_ids`."""
    arrays = pad_rows(tokenizer.pad_token_id, rows, text_kwargs)
    ids = arrays["input_ids"]
    if isinstance(ids, np.ndarray):
        arrays["mm_token_type_ids"] = _mm_token_type_ids(tokenizer, ids)
    else:
        arrays["mm_token_type_ids"] = [_mm_token_type_ids(tokenizer, np.array(row)).tolist() for row in ids]
    return arrays


def _mm_token_type_ids(tokenizer: Any, input_ids: np.ndarray) -> np.ndarray:
    """1 for NaViT placeholders, 2 for those of videos, 0 for all else, the source block included."""
    image, video, start, end = tokenizer.convert_tokens_to_ids([IMAGE_PAD, VIDEO_PAD, PIXEL_START, PIXEL_END])
    inside = (input_ids == start).cumsum(axis=-1) > (input_ids == end).cumsum(axis=-1)
    return ((input_ids == image) & ~inside) + 2 * (input_ids == video).astype(np.int64)
