"""Opening the pictures of training rows: quickly when only checking, and never a decompression bomb."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any, BinaryIO

from PIL import Image

from ..pictures.opening import FORMATS, MAX_PIXELS, UNREADABLE, ImageError, decode_image, open_header, open_image
from .data.local_paths import local_path
from .data.training_rows import Row, RowError

IMAGE_FORMATS = FORMATS
_FILES = (str, os.PathLike, bytes, bytearray, memoryview, Mapping)  # what stands for a file

__all__ = ["IMAGE_FORMATS", "MAX_PIXELS", "check_picture", "open_picture", "open_pictures", "stored_picture"]


def open_picture(picture: Any) -> Image.Image:
    """Opens a picture of a row as every other picture is opened, see [`wallaroo_hf.pictures.opening.open_image`].

    Args:
        picture: a path of this machine, the `{"bytes", "path"}` of `datasets`, bytes, a PIL image or an array.

    Raises:
        RowError: if it is missing, cannot be decoded, has more than `MAX_PIXELS`, or is no picture that a model can see.
    """
    with _row_errors():
        if not isinstance(picture, _FILES):
            return open_image(picture)
        with _stream(picture) as stream:
            return decode_image(stream, _name(picture))


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
    if decode or not isinstance(picture, _FILES):
        open_picture(picture)
        return
    with _row_errors(), _stream(picture) as stream, open_header(stream, _name(picture)):
        pass


def stored_picture(picture: Any) -> dict[str, Any]:
    """A picture as data sets store it, `{"bytes", "path"}`: the file's own bytes, or a PNG of what is no file.

    Raises:
        RowError: as [`open_picture`].
    """
    opened = open_picture(picture)
    if not isinstance(picture, _FILES):
        buffer = BytesIO()
        opened.save(buffer, format="PNG")
        return {"bytes": buffer.getvalue(), "path": None}
    path = picture.get("path") if isinstance(picture, Mapping) else picture
    name = os.path.basename(os.fspath(path)) if isinstance(path, (str, os.PathLike)) else None
    with _stream(picture) as stream:
        return {"bytes": stream.read(), "path": name}


@contextlib.contextmanager
def _row_errors() -> Iterator[None]:
    """What is wrong with a picture, as what is wrong with its row."""
    try:
        yield
    except ImageError as error:
        raise RowError(str(error), error.reason) from error
    except RowError:
        raise
    except UNREADABLE as error:  # of file systems and archives
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise RowError(f"The image cannot be read ({reason}).", "broken_image") from error


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
