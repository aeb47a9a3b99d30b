"""Masks of inpainting, and pictures that grow beyond their edges.

White is painted anew, black stays, grey is a blend of both: as in diffusers. A mask that is transparent somewhere is
painted anew there, whatever its colours: as in OpenAI's API.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..files.whole_text import printable
from .opening import MAX_PIXELS, open_image, quoted
from .pixels import to_mask

__all__ = [
    "SIDES",
    "composite",
    "fitted_cells",
    "grow",
    "open_mask",
    "open_row_mask",
    "read_growth",
    "read_sides",
    "repaint_cells",
    "with_masks",
]

SIDES = ("left", "top", "right", "bottom")


def open_mask(mask: Any, source: Image.Image) -> Image.Image:
    """A mask as one channel of the source's size.

    Args:
        mask: a picture of the source's size, in any form that [`open_image`] takes: white (or transparent, if anything in
            it is) where the source is painted anew, black where it stays, grey where the two are blended.
        source: what is edited.

    Returns:
        Mode L.

    Raises:
        ValueError: for a mask of another size, or one that is black all over.
    """
    opened = open_image(mask, to_mask)
    if opened.size != source.size:
        raise ValueError(
            f"The mask has {opened.width}x{opened.height} pixels (width x height), but its picture has "
            f"{source.width}x{source.height}; give a mask of the picture's size."
        )
    if opened.getbbox() is None:
        raise ValueError(
            "The mask is black all over, so nothing would change; paint white what is to be painted anew."
        )
    return opened


def open_row_mask(mask: Any, source: Image.Image | None, index: int) -> Image.Image | None:
    """The mask of a row of a batch, None where it has none.

    Args:
        mask: see [`open_mask`].
        source: what the row edits.
        index: of the row, for messages.

    Raises:
        ValueError: see [`open_mask`]; also where nothing is edited.
    """
    if mask is None:
        return None
    if source is None:
        raise ValueError(
            f"Row {index} of `mask_images` has a mask, but its row has no image to edit; masks are for edits."
        )
    return open_mask(mask, source)


def composite(source: Image.Image, drawn: Image.Image, mask: Image.Image) -> Image.Image:
    """What was drawn where the mask is white, the source where it is black, to the bit.

    Args:
        source, drawn: RGB of one size.
        mask: from [`open_mask`].
    """
    return Image.composite(drawn, source, mask)


def repaint_cells(pixels: np.ndarray, size: int) -> np.ndarray:
    """Which cells of a fitted mask are painted anew: those that hold anything but black, so that edges grow outwards.

    Args:
        pixels: `(C, height, width)` in [-1, 1], -1 = black.
        size: edge of a cell in pixels, which divides both edges.

    Returns:
        Bool `(height // size, width // size)`.
    """
    _, height, width = pixels.shape
    cells = pixels.reshape(-1, height // size, size, width // size, size)
    return np.asarray((cells > -1).any(axis=(0, 2, 4)))


def fitted_cells(mask: Image.Image, to_pixels: Callable[[Image.Image], np.ndarray], size: int) -> np.ndarray:
    """Which cells of what is painted are painted anew; see [`repaint_cells`].

    Args:
        mask: from [`open_mask`].
        to_pixels: brings a picture to the size that is painted, as the source is brought to it: `(C, height, width)`.
        size: edge of a cell in pixels.

    Raises:
        ValueError: if the whole of what is not black is cut off, or vanishes.
    """
    white = mask.point(lambda value: 255 if value else 0).convert("RGB")
    cells = repaint_cells(to_pixels(white), size)
    if not cells.any():
        raise ValueError(
            "What is white in the mask lies where the source is cut off, or is too small to be seen at the size to paint; "
            "pass source_fit='pad', or paint more of it white."
        )
    return cells


def with_masks(
    sources: Sequence[Image.Image | None], masks: Any, outpaint: Any
) -> tuple[list[Image.Image | None], list[Image.Image | None]]:
    """Sources, grown where they shall be, and their masks.

    Args:
        sources: RGB, or None where there is none.
        masks: one for all or a list, in any form that [`open_mask`] takes; None = none.
        outpaint: see [`read_sides`]; None = no source grows.

    Raises:
        ValueError: if there is nothing to mask, another number of masks, or both are asked for.
    """
    if masks is not None and outpaint is not None:
        raise ValueError("Both `mask_image` and `outpaint` were given; give one, as what is outpainted is the mask.")
    if outpaint is not None:
        sides = read_sides(outpaint)
        if any(source is None for source in sources):
            raise ValueError("`outpaint` needs the picture that grows; pass it as `image`.")
        grown = [grow(source, sides) for source in sources if source is not None]
        return [canvas for canvas, _ in grown], [mask for _, mask in grown]
    each = list(masks) if isinstance(masks, (list, tuple)) else [masks] * len(sources)
    if len(each) != len(sources):
        raise ValueError(f"{len(each)} masks were given for {len(sources)} prompts; give one for all or one each.")
    if any(mask is not None and source is None for mask, source in zip(each, sources, strict=True)):
        raise ValueError("`mask_image` needs the picture that it masks; pass it as `image`.")
    pairs = zip(each, sources, strict=True)
    return list(sources), [
        None if mask is None or source is None else open_mask(mask, source) for mask, source in pairs
    ]


def read_growth(text: str, name: str) -> int | dict[str, int]:
    """By how many pixels a picture grows, as people write it: "64", or "left=64,right=32".

    Args:
        text: as written.
        name: of what was written, for messages.

    Raises:
        ValueError: for anything else; sides are checked by [`read_sides`].
    """
    if re.fullmatch(r"\s*\d{1,9}\s*", text):
        return int(text)
    sides: dict[str, int] = {}
    for part in text.split(","):
        side, equals, count = (piece.strip() for piece in part.partition("="))
        if not equals or not re.fullmatch(r"\d{1,9}", count) or side in sides:
            raise ValueError(
                f"{name} is {quoted(text)}, but must be a number of pixels for all sides, such as 64, or for some, such as "
                "left=64,right=32."
            )
        sides[side] = int(count)
    return sides


def read_sides(sides: Any) -> dict[str, int]:
    """By how many pixels a picture grows at each side.

    Args:
        sides: a number for all sides, or a mapping of some of "left", "top", "right" and "bottom" to numbers.

    Returns:
        All four, 0 where nothing was said.

    Raises:
        ValueError: for a side that is none, no whole number from 0 on, or no growth at all.
    """
    given = dict(sides) if isinstance(sides, Mapping) else dict.fromkeys(SIDES, sides)
    for side, count in given.items():
        if side not in SIDES:
            raise ValueError(f"`outpaint` names the side {_told(side)}, but sides are {', '.join(SIDES)}.")
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise ValueError(
                f"`outpaint` is {_told(count)} at the side {_told(side)}, but must be a whole number of pixels from 0 on."
            )
    if not any(given.values()):
        raise ValueError("`outpaint` is 0 at every side, so nothing would be painted; give a number of pixels.")
    return {side: given.get(side, 0) for side in SIDES}


def grow(
    picture: Image.Image, sides: Mapping[str, int], max_pixels: int = MAX_PIXELS
) -> tuple[Image.Image, Image.Image]:
    """A picture on a larger canvas, its edges repeated around it, and the mask that is white there.

    Args:
        picture: RGB.
        sides: from [`read_sides`].
        max_pixels: largest width times height of the canvas.

    Returns:
        Canvas and mask, of one size.

    Raises:
        ValueError: for a canvas that is too large.
    """
    width, height = picture.width + sides["left"] + sides["right"], picture.height + sides["top"] + sides["bottom"]
    if width * height > max_pixels:
        raise ValueError(
            f"The picture would grow to {width}x{height} pixels (width x height), but may have {max_pixels:,}; let it grow "
            "less."
        )
    around = ((sides["top"], sides["bottom"]), (sides["left"], sides["right"]))
    canvas = Image.fromarray(np.pad(np.asarray(picture), (*around, (0, 0)), mode="edge"))
    mask = np.pad(np.zeros((picture.height, picture.width), np.uint8), around, constant_values=255)
    return canvas, Image.fromarray(mask)


def _told(value: Any) -> str:
    """As messages name it."""
    return printable(repr(value), 60)
