"""Opening images as people give them: the one place that decides what is read, how large it may be and how it turns out."""

import base64
import binascii
import io
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import httpx
from PIL import Image, ImageOps, UnidentifiedImageError
from transformers.image_transforms import to_pil_image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # small, well-tested readers; files may come from anywhere
MAX_PIXELS = 64_000_000
MAX_ASPECT_RATIO = 200  # Qwen2-VL's image processor refuses longer images, only later
MAX_JPEG_SCANS = 100  # each costs a pass over all pixels; usual files have up to about 10
MAX_DOWNLOAD_BYTES = 64_000_000
DOWNLOAD_TIMEOUT = 30.0  # seconds without an answer

# What Pillow's readers raise at files that are damaged or made to do damage.
UNREADABLE = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError),
    *(RuntimeError, struct.error, zlib.error, Image.DecompressionBombError),
)

__all__ = ["FORMATS", "MAX_ASPECT_RATIO", "MAX_PIXELS", "decode_image", "flatten_images", "open_image"]


def open_image(image: Any) -> Image.Image:
    """Loads one image as RGB, whoever made it.

    Files are read by the readers of `FORMATS` only, and the size in their header is checked before anything is decoded. The
    picture is turned as its EXIF entry says, transparent parts become white, and of an animation the first frame is taken.

    Args:
        image: a PIL image, a path, an http(s) or data URL, base64 text, the bytes of a file, or an array or tensor of shape
            `(H, W, 3)` or `(3, H, W)`.

    Raises:
        ValueError: if it cannot be found or decoded, has more than `MAX_PIXELS`, or is longer than `MAX_ASPECT_RATIO` times
            its width; the message names it.
    """
    if hasattr(image, "__fspath__"):
        image = image.__fspath__()
    if isinstance(image, Image.Image):
        return _finish(image, "given")
    if isinstance(image, (bytes, bytearray)):
        return decode_image(bytes(image))
    if isinstance(image, str):
        name = f"'{image[:200]}'"
        with _file(image, name) as file:
            return decode_image(file, name)
    try:
        return _finish(to_pil_image(image), "given")
    except (ValueError, TypeError) as error:
        raise _unreadable(f"of type {type(image).__name__}", error) from error


def decode_image(
    data: bytes | BinaryIO, name: str = "given", max_pixels: int = MAX_PIXELS, formats: Sequence[str] = FORMATS
) -> Image.Image:
    """Decodes the bytes of an image file, which may be hostile; see [`open_image`].

    Args:
        data: the bytes, or an open file.
        name: what messages call it.
        max_pixels: largest width times height, checked on the header.
        formats: whose readers are tried, some of `FORMATS`.

    Raises:
        ValueError: see [`open_image`]; also for a JPEG file of more than `MAX_JPEG_SCANS` scans.
    """
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        # a size that Pillow itself thinks dangerous is refused by `_finish` too, in our words
        opened = Image.open(file, formats=formats)
    except UnidentifiedImageError as error:
        known = f"{', '.join(formats[:-1])} or {formats[-1]}"
        raise ValueError(f"The image {name} could not be read (it is no {known} file); give one.") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"The image {name} has more than {max_pixels:,} pixels; give a smaller one.") from error
    except UNREADABLE as error:
        raise _unreadable(name, error) from error
    with opened:
        if opened.format == "JPEG":
            _check_scans(file, name)
        return _finish(opened, name, max_pixels)


def flatten_images(images: Any) -> list[Image.Image]:
    """Loads one image or (nested) lists of images into one flat list, in order; `None` entries are skipped."""
    if images is None:
        return []
    if isinstance(images, (list, tuple)):
        return [image for item in images for image in flatten_images(item)]
    return [open_image(images)]


def _check_scans(file: BinaryIO, name: str) -> None:
    file.seek(0)
    if file.read().count(b"\xff\xda") > MAX_JPEG_SCANS:
        raise ValueError(f"The image {name} is a JPEG file of more than {MAX_JPEG_SCANS} scans; save it anew.")


def _finish(image: Image.Image, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Size checked, decoded, upright, RGB."""
    width, height = image.size
    if width * height > max_pixels:
        raise ValueError(
            f"The image {name} has {width}x{height} pixels, but at most {max_pixels:,} are read; give a smaller one."
        )
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise ValueError(
            f"The image {name} has {width}x{height} pixels, but one side may be at most {MAX_ASPECT_RATIO} times the "
            "other; crop it."
        )
    try:
        image.load()
        return _on_white(ImageOps.exif_transpose(image))
    except UNREADABLE as error:
        raise _unreadable(name, error) from error


def _on_white(image: Image.Image) -> Image.Image:
    """The picture as RGB; where it is transparent, white shows through."""
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits a pixel: Pillow would clip them at 255
        return image.point(lambda value: value * (1 / 256)).convert("L").convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


@contextmanager
def _file(text: str, name: str) -> Iterator[BinaryIO]:
    """The file that a path, URL or base64 text stands for."""
    if text.startswith(("http://", "https://")):
        yield io.BytesIO(_download(text, name))
        return
    if text.startswith("data:"):
        yield io.BytesIO(_from_base64(text.partition(",")[2], name))
        return
    if len(text) < 4096 and os.path.exists(text):  # longer ones are no paths anywhere
        try:
            with open(text, "rb") as file:
                yield file
        except OSError as error:
            raise _unreadable(name, error) from error
        return
    if len(text) < 1024 or "://" in text[:32]:  # base64 text of an image is longer than this
        raise ValueError(
            f"The image {name} does not exist; give the path of an image file, an http(s) URL or a PIL image."
        )
    yield io.BytesIO(_from_base64(text, name))


def _from_base64(text: str, name: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _unreadable(name, error) from error


def _download(url: str, name: str) -> bytes:
    """The bytes behind a URL that a person typed, at most `MAX_DOWNLOAD_BYTES` of them.

    Any host is asked: a program that gets its URLs from strangers must check them first.
    """
    data = bytearray()
    try:
        with httpx.stream("GET", url, timeout=DOWNLOAD_TIMEOUT, follow_redirects=True) as response:
            response.raise_for_status()
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > MAX_DOWNLOAD_BYTES:
                    raise ValueError(
                        f"The image {name} is larger than {MAX_DOWNLOAD_BYTES:,} bytes; give a smaller one."
                    )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _unreadable(name, error) from error
    return bytes(data)


def _unreadable(name: str, error: BaseException) -> ValueError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return ValueError(
        f"The image {name} could not be read ({reason}); give a path, URL or PIL image of an undamaged file."
    )
