"""Pictures that are painted within a mask, in the picture that they belong to, also while they are made."""

from typing import Any

from PIL import Image, ImageChops

from ..pictures.masks import composite

__all__ = ["within_mask"]


def within_mask(
    processor: Any, picture: Image.Image, source: Image.Image, mask: Image.Image, height: int | None = None
) -> Image.Image:
    """What was painted in its place, the source everywhere else, also where rows are missing yet.

    Args:
        processor: undoes the change of size, see [`wallaroo_hf.families.contract.DrawingProcessor`].
        picture: what is there of it, of its full width.
        source: what is edited.
        mask: from [`wallaroo_hf.pictures.masks.open_mask`].
        height: of the whole, in pixels, of which `picture` may be the first rows; None = `picture` is the whole.

    Returns:
        RGB, of the source's size; where the mask is black it is the source, to the bit.
    """
    canvas = Image.new("RGB", (picture.width, height or picture.height))
    if canvas.height == picture.height:
        return composite(source, processor.fit_back([picture], [source], "pad")[0], mask)
    there = canvas.copy()
    canvas.paste(picture)
    there.paste("white", (0, 0, *picture.size))
    whole, rows = processor.fit_back([canvas, there], [source, source], "pad")
    return composite(source, whole, ImageChops.darker(mask, rows.convert("L")))
