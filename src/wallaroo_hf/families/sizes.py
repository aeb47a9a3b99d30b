"""Choosing the size of a picture: `(height, width)` in pixels, from what somebody asks for and what a checkpoint lists."""

import math
from collections.abc import Sequence
from typing import Protocol

from ..files.whole_text import printable

__all__ = ["Sized", "nearest_bucket", "parse_aspect_ratio", "pick_size"]


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
