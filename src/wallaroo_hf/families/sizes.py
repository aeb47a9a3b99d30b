"""Choosing the size of a picture: `(height, width)` in pixels, from what somebody asks for and what a checkpoint lists."""

import math
from collections.abc import Sequence
from typing import Protocol

from ..files.whole_text import printable

__all__ = [
    *("SizeError", "Sized", "contain_and_pad", "cover_and_crop", "nearest_bucket", "parse_aspect_ratio", "pick_size"),
    "whole_edges",
]


class SizeError(ValueError):
    """A size that cannot be drawn.

    Args:
        message: one sentence, in which sizes are height x width.
        reason: what is wrong, as the end of another sentence, for doors that call sizes otherwise.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def whole_edges(height: int, width: int, multiple: int) -> None:
    """Makes sure that a size is made of whole tokens.

    Args:
        height, width: in pixels.
        multiple: of which each is one.

    Raises:
        SizeError: naming the first that is none, and what would do.
    """
    for name, value in (("height", height), ("width", width)):
        if not isinstance(value, int) or value <= 0 or value % multiple:
            is_number = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
            below = max(multiple, int(value) // multiple * multiple) if is_number else multiple
            raise SizeError(
                f"`{name}` is {value!r}, but must be a positive multiple of {multiple} pixels; try {below} or "
                f"{below + multiple}.",
                f"each edge must be a positive multiple of {multiple} pixels",
            )


class Sized(Protocol):
    """A picture, as far as its size goes."""

    @property
    def height(self) -> int:
        """In pixels."""

    @property
    def width(self) -> int:
        """In pixels."""


def nearest_bucket(height: float, width: float, buckets: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The listed `(height, width)` whose ratio is nearest to that of `height` x `width`; ties take the first.

    Ratios of listed sizes count rounded to two digits, as in the released code of Wallaroo, which looks them up by these.
    """
    ratio = height / width
    return min(buckets, key=lambda bucket: abs(round(bucket[0] / bucket[1], 2) - ratio))


def parse_aspect_ratio(aspect_ratio: str | float) -> float:
    """Turns `"16:9"` or `1.78` (width to height) into width / height.

    Raises:
        ValueError: if it is neither a positive number nor two positive numbers with a colon.
    """
    try:
        if isinstance(aspect_ratio, str):
            width, _, height = aspect_ratio.partition(":")
            ratio = float(width) / float(height or 1)
        else:
            ratio = float(aspect_ratio)
    except (ValueError, TypeError, OverflowError, ZeroDivisionError):
        ratio = math.nan
    if not (math.isfinite(ratio) and ratio > 0):
        raise ValueError(
            f"`aspect_ratio` is {printable(repr(aspect_ratio), 60)}, but must be width to height, such as '16:9' or 1.78; "
            "or pass `height` and `width` in pixels."
        )
    return ratio


def pick_size(
    sizes: Sequence[tuple[int, int]],
    height: int | None = None,
    width: int | None = None,
    aspect_ratio: str | float | None = None,
    like: Sized | None = None,
) -> tuple[int, int]:
    """The `(height, width)` to draw: as given, else by aspect ratio, else like a picture, else the most square listed one.

    Args:
        sizes: those that are listed.
        height, width: in pixels, both or none.
        aspect_ratio: width to height; see [`parse_aspect_ratio`].
        like: the picture to edit.

    Raises:
        ValueError: if only one edge is given, or a size and an aspect ratio.
    """
    if (height is None) != (width is None):
        raise ValueError("Give both `height` and `width`, or neither (an `aspect_ratio` picks a listed size).")
    if height is not None and width is not None:
        if aspect_ratio is not None:
            raise ValueError("Give either `height` and `width`, or `aspect_ratio`, not both.")
        return height, width
    if aspect_ratio is not None:
        return nearest_bucket(1.0, parse_aspect_ratio(aspect_ratio), sizes)
    if like is not None:
        return nearest_bucket(like.height, like.width, sizes)
    return nearest_bucket(1, 1, sizes)


def cover_and_crop(
    height: int, width: int, target_height: int, target_width: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """How released data code brings an image to a size: resize until it covers the size, then crop the centre.

    Args:
        height, width: the image's, in pixels.
        target_height, target_width: the size to be brought to.

    Returns:
        `((resized_height, resized_width), (crop_top, crop_left))`. Offsets of half a pixel are rounded to even.
    """
    if target_height / height > target_width / width:
        resized = target_height, int(width * target_height / height)
    else:
        resized = int(height * target_width / width), target_width
    resized = max(resized[0], target_height), max(resized[1], target_width)
    return resized, (round((resized[0] - target_height) / 2), round((resized[1] - target_width) / 2))


def contain_and_pad(
    height: int, width: int, target_height: int, target_width: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """How an image is brought to a size without losing any of it: resize until it fits inside, then pad evenly.

    Args:
        height, width: the image's, in pixels.
        target_height, target_width: the size to be brought to.

    Returns:
        `((resized_height, resized_width), (pad_top, pad_left))`.
    """
    scale = min(target_height / height, target_width / width)
    resized = min(max(round(height * scale), 1), target_height), min(max(round(width * scale), 1), target_width)
    return resized, ((target_height - resized[0]) // 2, (target_width - resized[1]) // 2)
