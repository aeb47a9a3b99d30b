"""Arithmetic between pixels, rows of codes and the listed image sizes (buckets).

Sizes are always `(height, width)` in pixels and grids `(rows, cols)` in codes.
"""

from collections.abc import Sequence

from ..families.sizes import (
    SizeError,
    contain_and_pad,
    cover_and_crop,
    nearest_bucket,
    parse_aspect_ratio,
    whole_edges,
)
from .special_tokens import END_OF_LINE

__all__ = [
    "BUCKETS_512",
    "check_size",
    "contain_and_pad",
    "cover_and_crop",
    "nearest_bucket",
    "nearest_indicator",
    "parse_aspect_ratio",
    "render_rows",
]

# The 19 sizes around 512x512 of the released multi-size stages. A bucket's ratio (height / width, rounded to two
# digits) is the key by which the released code looks it up; ties take the first bucket.
BUCKETS_512 = (
    (352, 704),
    (352, 672),
    (384, 672),
    (384, 640),
    (416, 608),
    (416, 576),
    (448, 576),
    (448, 544),
    (480, 544),
    (480, 512),
    (512, 512),
    (544, 480),
    (544, 448),
    (576, 448),
    (576, 416),
    (608, 416),
    (640, 384),
    (672, 384),
    (704, 352),
)

# 64 times what the released model was trained to draw; larger grids would only fill memory.
MAX_CODES = 2**16


def nearest_indicator(size: int, indicator_sizes: Sequence[int]) -> int:
    """The listed edge length nearest to `size` pixels; ties take the smaller one."""
    return min(sorted(indicator_sizes), key=lambda listed: abs(listed - size))


def check_size(height: int, width: int, factor: int, plain_grid: bool) -> tuple[int, int]:
    """Returns the grid `(rows, cols)` of a size in pixels.

    Args:
        factor: edge of one code in pixels (16 for the released tokenizer).
        plain_grid: whether the checkpoint draws without line breaks, and therefore only square images.

    Raises:
        SizeError: if the size is not made of whole codes, too large, or not square on the plain grid.
    """
    whole_edges(height, width, factor)
    if height * width > MAX_CODES * factor**2:
        codes = height * width // factor**2
        raise SizeError(
            f"A size of {height}x{width} (height x width) has {codes:,} codes, but at most {MAX_CODES:,} can be drawn; ask "
            "for a smaller image.",
            f"it has {codes:,} codes, of which at most {MAX_CODES:,} can be drawn",
        )
    if plain_grid and height != width:
        only = "this checkpoint draws square images only (it was trained without line breaks)"
        raise SizeError(
            f"A size of {height}x{width} (height x width) was asked for, but {only}; pass equal `height` and `width`, or "
            "use a stage 3b or 4 checkpoint.",
            only,
        )
    return height // factor, width // factor


def render_rows(placeholder: str, rows: int, cols: int, line_breaks: bool) -> str:
    """Writes a grid as text: one placeholder per code, a line break between rows (none after the last).

    Args:
        placeholder: the token that stands for a code.
        rows, cols: of the grid.
        line_breaks: whether the checkpoint's layout has them.
    """
    return (END_OF_LINE if line_breaks else "").join([placeholder * cols] * rows)
