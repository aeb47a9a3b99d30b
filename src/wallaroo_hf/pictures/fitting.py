"""Bringing a picture to a size whose shape is another, and back."""

from PIL import Image

from ..families.sizes import contain_and_pad, cover_and_crop

__all__ = ["FITS", "check_fit", "fit_back", "resize_to_fit"]

FITS = ("crop", "pad")


def check_fit(fit: str) -> None:
    """Refuses a `fit` that names no way to bring an image to a size.

    Raises:
        ValueError: if it is none.
    """
    if fit not in FITS:
        raise ValueError(f"`source_fit` is {fit!r}, but must be 'crop' (as in training) or 'pad' (loses nothing).")


def resize_to_fit(
    image: Image.Image, height: int, width: int, fit: str
) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """A picture resized with bicubic filtering and cut, and what is missing around it.

    Args:
        image: RGB.
        height, width: the size to be brought to.
        fit: `"crop"` covers the size and cuts off what is over (the released data code); `"pad"` keeps all of the picture.

    Returns:
        The picture and `(top, bottom, left, right)`: the pixels that are missing of the size; none with `"crop"`.

    Raises:
        ValueError: for another `fit`.
    """
    check_fit(fit)
    arrange = cover_and_crop if fit == "crop" else contain_and_pad
    (resized_height, resized_width), (top, left) = arrange(image.height, image.width, height, width)
    if (resized_width, resized_height) != image.size:
        image = image.resize((resized_width, resized_height), Image.Resampling.BICUBIC)
    if fit == "crop":
        return image.crop((left, top, left + width, top + height)), (0, 0, 0, 0)
    return image, (top, height - resized_height - top, left, width - resized_width - left)


def fit_back(image: Image.Image, source: Image.Image, fit: str) -> Image.Image:
    """Undoes the change of size: an edited image back at the scale of its source.

    Args:
        image: what was drawn.
        source: what was edited, as it was given.
        fit: how the source had been brought to the size of `image`.

    Returns:
        With `"pad"` an image of the source's size: the padding is cut off. With `"crop"` one of the size of the part of
        the source that the model saw; what was cut off cannot come back.

    Raises:
        ValueError: for another `fit`.
    """
    check_fit(fit)
    if fit == "pad":
        (height, width), (top, left) = contain_and_pad(source.height, source.width, image.height, image.width)
        return image.crop((left, top, left + width, top + height)).resize(source.size, Image.Resampling.BICUBIC)
    (height, width), _ = cover_and_crop(source.height, source.width, image.height, image.width)
    seen = round(image.width * source.width / width), round(image.height * source.height / height)
    return image.resize(seen, Image.Resampling.BICUBIC)
