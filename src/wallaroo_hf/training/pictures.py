"""Opening the pictures of training rows: quickly when only checking, and never a decompression bomb."""

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any, BinaryIO

from PIL import Image, UnidentifiedImageError

from ..processing.image_processor import open_image
from .local_paths import local_path
from .rows import Row, RowError

MAX_PIXELS = 64_000_000
# Formats with a small and well-tested decoder; the files may come from anywhere.
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_DECODING_ERRORS = (OSError, ValueError, TypeError, SyntaxError, EOFError, LookupError, struct.error, zlib.error)

__all__ = ["IMAGE_FORMATS", "MAX_PIXELS", "check_picture", "open_picture", "open_pictures", "stored_picture"]


def open_picture(picture: Any) -> Image.Image:
    """Opens a picture of a row as the processor sees it: RGB, upright, the first frame.

    Args:
        picture: a PIL image, a path of this machine, bytes, or the `{"bytes", "path"}` of `datasets`.

    Raises:
        RowError: if it is missing, cannot be decoded, or has more than `MAX_PIXELS`.
    """
    with _opened(picture) as image:
        return open_image(image)


def open_pictures(row: Row) -> Row:
    """A row whose pictures are opened, as a mixture's `check`: rows with broken pictures are then replaced, too.

    Raises:
        RowError: as [`open_picture`].
    """
    images = [None if picture is None else open_picture(picture) for picture in row.get("images") or ()]
    return {**row, "images": images}


def check_picture(picture: Any, decode: bool = True) -> None:
    """Raises unless a picture can be opened.

    Args:
        picture: as for [`open_picture`].
        decode: whether all of it is decoded, or only its header read.

    Raises:
        RowError: as [`open_picture`].
    """
    with _opened(picture) as image:
        if decode:
            image.load()


def stored_picture(picture: Any) -> dict[str, Any]:
    """A picture as data sets store it, `{"bytes", "path"}`: the file's own bytes, or a PNG of a PIL image.

    Raises:
        RowError: as [`open_picture`].
    """
    check_picture(picture)
    if isinstance(picture, Image.Image):
        buffer = BytesIO()
        open_picture(picture).save(buffer, format="PNG")
        return {"bytes": buffer.getvalue(), "path": None}
    path = picture.get("path") if isinstance(picture, Mapping) else picture
    name = os.path.basename(os.fspath(path)) if isinstance(path, (str, os.PathLike)) else None
    with _stream(picture) as stream:
        return {"bytes": stream.read(), "path": name}


@contextlib.contextmanager
def _opened(picture: Any) -> Iterator[Image.Image]:
    """The picture with only its header read; what goes wrong with it in the block becomes a `RowError` too."""
    try:
        if isinstance(picture, Image.Image):
            yield _within_limit(picture, picture)
            return
        with _stream(picture) as stream, Image.open(stream, formats=IMAGE_FORMATS) as image:
            yield _within_limit(image, picture)
    except RowError:
        raise
    except Image.DecompressionBombError as error:
        raise RowError(
            f"The image {_name(picture)} has more than {MAX_PIXELS:,} pixels.", "too_large_image"
        ) from error
    except UnidentifiedImageError as error:
        raise RowError(
            f"The image {_name(picture)} is not an undamaged file of type {', '.join(IMAGE_FORMATS)}.", "broken_image"
        ) from error
    except _DECODING_ERRORS as error:
        message = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise RowError(f"The image {_name(picture)} cannot be decoded ({message}).", "broken_image") from error


def _within_limit(image: Image.Image, picture: Any) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise RowError(
            f"The image {_name(picture)} has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}.",
            "too_large_image",
        )
    return image


def _stream(picture: Any) -> BinaryIO:
    data, path = picture, None
    if isinstance(picture, Mapping):
        data, path = picture.get("bytes"), picture.get("path")
    elif isinstance(picture, (str, os.PathLike)):
        data, path = None, os.fspath(picture)
    if isinstance(data, (bytes, bytearray, memoryview)):
        return BytesIO(data)
    if not path:
        raise RowError(
            f"An image is {_name(picture)}; give a PIL image, a path, bytes or a dict with bytes or a path.",
            "broken_image",
        )
    try:
        path = local_path(path, what="The image")
    except ValueError as error:
        raise RowError(str(error), "missing_image") from error
    if not os.path.isfile(path):
        raise RowError(f"The image '{path}' does not exist.", "missing_image")
    return open(path, "rb")


def _name(picture: Any) -> str:
    if isinstance(picture, Mapping):
        picture = picture.get("path") or (picture.get("bytes") and b"") or picture
    if isinstance(picture, (str, os.PathLike)):
        return f"'{os.fspath(picture)[:200]}'"
    return f"of type {type(picture).__name__}"
