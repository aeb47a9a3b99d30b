"""What numbers mean as a picture: arrays, tensors and all of Pillow's modes become RGB with 8 bits a channel."""

import sys
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageCms

from .image_errors import ImageError

__all__ = ["array_to_image", "as_array", "is_array", "to_mask", "to_rgb"]

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
# Values between these could be of a dark picture or of another range; a picture is not turned black on a guess.
_LEAST_FLOAT_8_BITS = 16
_LEAST_16_BITS = 4096
_ROUNDING = 1e-3  # of the range: what arithmetic in half precision, or resizing, may add


def is_array(value: Any) -> bool:
    """Whether a value is an array or a tensor, of whichever library."""
    return _is_tensor(value) or (hasattr(value, "__array__") and not isinstance(value, Image.Image))


def as_array(value: Any, name: str) -> np.ndarray:
    """An array or tensor as a numpy array `(H, W, C)` of its own values, C from 1 to 4.

    Channels may stand last or first; where both could be, they stand first in tensors and last in other arrays.

    Raises:
        ImageError: if it cannot be read or has another shape.
    """
    try:
        array = _tensor_to_array(value) if _is_tensor(value) else np.asarray(value)
    except (TypeError, ValueError, RuntimeError, AttributeError, BufferError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ImageError(
            f"The image {name}, of type {type(value).__name__}, cannot be read as an array ({reason}); give a dense one "
            "that holds its values."
        ) from error
    if array.ndim == 2:
        return array[:, :, None]
    if array.ndim == 3:
        usual, other = (0, 2) if _is_tensor(value) else (2, 0)
        for axis, channels in ((usual, (1, 3, 4)), (other, (1, 3, 4)), (usual, (2,))):
            if array.shape[axis] in channels:
                return np.moveaxis(array, axis, 2)
    raise ImageError(
        f"The image {name} is an array of shape {array.shape}, but a picture is (H, W), (H, W, C) or (C, H, W) with 1 to 4 "
        "channels; give one such array per picture.",
        "unusable_image",
    )


def array_to_image(array: np.ndarray, name: str) -> Image.Image:
    """An array `(H, W, C)` as a picture of mode L, LA, RGB or RGBA; colours and transparency are scaled each by itself.

    Raises:
        ImageError: if the values are of no range of pictures; see [`_eight_bits`].
    """
    if array.shape[2] in (2, 4):
        parts = [_eight_bits(array[..., :-1], name), _eight_bits(array[..., -1:], name)]
        pixels = np.concatenate(parts, axis=2)
    else:
        pixels = _eight_bits(array, name)
    pixels = np.ascontiguousarray(pixels if pixels.shape[2] > 1 else pixels[:, :, 0])
    return Image.frombytes(_MODES[array.shape[2]], (array.shape[1], array.shape[0]), pixels.tobytes())


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """A picture of any mode as RGB; where it is transparent, white shows through.

    Raises:
        ImageError: if it has more than 8 bits a pixel, and values of no range of pictures.
    """
    if image.mode.startswith("I") or image.mode == "F":  # Pillow would clip them at 255
        return array_to_image(np.asarray(image)[:, :, None], name).convert("RGB")
    if image.mode == "LAB":
        return _lab_to_rgb(image)
    if image.mode in _PREMULTIPLIED:
        image = image.convert(_PREMULTIPLIED[image.mode])
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def to_mask(image: Image.Image, name: str) -> Image.Image:
    """A picture of any mode as a mask of mode L: what is transparent is white, else what is white.

    Raises:
        ImageError: see [`to_rgb`].
    """
    if image.mode in _PREMULTIPLIED:
        image = image.convert(_PREMULTIPLIED[image.mode])
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
        if alpha.getextrema() != (255, 255):
            return ImageChops.invert(alpha)
    return to_rgb(image, name).convert("L")


def _eight_bits(values: np.ndarray, name: str) -> np.ndarray:
    """Values as uint8, by what they are.

    uint8 stays as it is, and of booleans true is white. Floating-point values up to 1 are shares of white; values up to
    255 are of 8 bits, those up to 65,535 of 16. Where the highest value would leave it open which range was meant, the
    picture is refused: a wrong guess would turn it black.

    Raises:
        ImageError: for values of no such range, that are not finite, or no numbers.
    """
    kind = values.dtype.kind
    if values.dtype == np.uint8:
        return values
    if kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if kind not in "iuf":
        raise ImageError(
            f"The image {name} is an array of type {values.dtype}, but a picture is of integers, floating-point numbers or "
            "booleans; convert it.",
            "unusable_image",
        )
    if kind == "f" and not np.isfinite(values).all():
        raise ImageError(
            f"The image {name} holds values that are not finite (NaN or infinity); replace them by colours.",
            "unusable_image",
        )
    low, high = values.min().item(), values.max().item()
    white = _white(values, high)
    if white is None or low < (-_ROUNDING * white if kind == "f" else 0):
        raise ImageError(
            f"The image {name} has values from {_shown(low)} to {_shown(high)}, which are neither 0 to 255, nor of 16 bits "
            "(the highest from 4,096 to 65,535), nor floating-point from 0 to 1; scale them to one of these.",
            "unusable_image",
        )
    if white == 65_535:
        return (values // 256).clip(0, 255).astype(np.uint8)
    if kind != "f":
        return values.astype(np.uint8)
    scaled = values.astype(np.float32) * np.float32(255 / white)
    return np.rint(scaled).clip(0, 255).astype(np.uint8)


def _white(values: np.ndarray, high: float) -> int | None:
    """What white is in the range that values up to `high` are of: 1, 255 or 65,535; None if that cannot be told."""
    if values.dtype.kind != "f":
        if high <= 255:
            return 255
        return 65_535 if _LEAST_16_BITS <= high <= 65_535 else None
    if high <= 1 + _ROUNDING:
        return 1
    if high <= 255 * (1 + _ROUNDING):
        is_plain = high >= _LEAST_FLOAT_8_BITS or bool((values == np.rint(values)).all())
        return 255 if is_plain else None
    return 65_535 if _LEAST_16_BITS <= high <= 65_535 * (1 + _ROUNDING) else None


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    """By its colour profile's definition: Pillow's own conversions have none for LAB."""
    lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.applyTransform(image, ImageCms.buildTransform(lab, rgb, "LAB", "RGB"))


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")  # who gives a tensor has imported it; who gives none need not wait for it
    return torch is not None and isinstance(value, torch.Tensor)


def _tensor_to_array(tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point() and tensor.dtype.itemsize < 4:
        tensor = tensor.float()  # numpy has no bfloat16; nothing is lost
    return tensor.resolve_conj().numpy()
