"""Opening pictures as people give them: the one place that decides what is read, how large it may be and how it turns out.

Importing it does not import torch, so that a process that only opens pictures starts at once.
"""

import base64
import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import url2pathname

import httpx
from PIL import Image, UnidentifiedImageError

from .costs import check_cost
from .image_errors import ImageError
from .pixels import array_to_image, as_array, is_array, to_rgb

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # small, well-tested readers; files may come from anywhere
MAX_PIXELS = 64_000_000
MAX_ASPECT_RATIO = 200  # Qwen2-VL's image processor refuses longer images, only later
MAX_DOWNLOAD_BYTES = 64_000_000
DOWNLOAD_TIMEOUT = 30.0  # seconds without an answer

# What Pillow's readers raise at files that are damaged or made to do damage.
UNREADABLE = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError),
    *(RuntimeError, AssertionError, ImportError, struct.error, zlib.error, Image.DecompressionBombError),
)

_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

__all__ = [
    *("FORMATS", "MAX_ASPECT_RATIO", "MAX_PIXELS", "UNREADABLE", "ImageError"),
    *("decode_image", "flatten_images", "open_header", "open_image", "quoted", "read_data_url"),
]


Convert = Callable[[Image.Image, str], Image.Image]  # what a decoded picture of a name becomes


def open_image(image: Any, convert: Convert = to_rgb) -> Image.Image:
    """Loads one picture as RGB with 8 bits a channel, whoever made it.

    Files are read by the readers of `FORMATS` only, and the size in their header is checked before anything is decoded. The
    picture is turned as its EXIF entry says (one that is damaged says nothing), transparent parts become white, and of an
    animation the first frame is taken. What comes out holds pixels and nothing else, and opening it again gives it as it
    is.

    Args:
        image: a PIL image; a path, a `file://`, http(s) or data URL, or base64 text; the bytes of a file, an open file, or
            the `{"bytes", "path"}` of `datasets`; or an array or tensor `(H, W)`, `(H, W, C)` or `(C, H, W)` of 1 to 4
            channels, of booleans, of integers of 8 or 16 bits, or of floating-point numbers of the same ranges or up to 1.
        convert: what it becomes in the end; [`wallaroo_hf.pictures.pixels.to_mask`] makes a mask of it.

    Raises:
        ImageError: a `ValueError`; if it cannot be found or decoded, has no pixels or more than `MAX_PIXELS`, is longer
            than `MAX_ASPECT_RATIO` times its width, would cost far more to decode than its size says, or its values are of
            no range of pictures; the message names it.
    """
    if isinstance(image, Mapping):
        image = _stored(image)
    if isinstance(image, Image.Image):
        return _given(image, convert)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return decode_image(bytes(image), convert=convert)
    if isinstance(image, (str, os.PathLike)):
        text = os.fsdecode(image)
        name = quoted(text)
        with _file(text, name) as file:
            return decode_image(file, name, convert=convert)
    if hasattr(image, "read"):
        return _read(image, convert)
    if is_array(image):
        array = as_array(image, "given")
        _check_size(array.shape[1], array.shape[0], "given", MAX_PIXELS)
        return convert(array_to_image(array, "given"), "given")
    raise ImageError(
        f"The image given is of type {type(image).__name__}; give a path, a URL, the bytes of a file, an open file, a PIL "
        "image, an array or a tensor."
    )


def decode_image(
    data: bytes | BinaryIO,
    name: str = "given",
    max_pixels: int = MAX_PIXELS,
    formats: Sequence[str] = FORMATS,
    convert: Convert = to_rgb,
) -> Image.Image:
    """Decodes the bytes of an image file, which may be hostile; see [`open_image`].

    Args:
        data: the bytes, or an open file.
        name: what messages call it.
        max_pixels: largest width times height, checked on the header.
        formats: whose readers are tried, some of `FORMATS`.
        convert: see [`open_image`].

    Raises:
        ImageError: see [`open_image`]; also for a file that is made to cost more than its picture, see
            [`wallaroo_hf.pictures.costs.check_cost`].
    """
    with open_header(data, name, max_pixels, formats) as opened:
        return _finish(opened, name, convert)


@contextmanager
def open_header(
    data: bytes | BinaryIO, name: str = "given", max_pixels: int = MAX_PIXELS, formats: Sequence[str] = FORMATS
) -> Iterator[Image.Image]:
    """A picture of which only the header is read and checked.

    Args:
        data: the file.
        name: what errors call it.
        max_pixels: larger pictures are refused.
        formats: those that are opened.

    Raises:
        ImageError: as [`decode_image`], for all that the header tells.
    """
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        # a size that Pillow itself thinks dangerous is refused in our words too
        opened = Image.open(file, formats=formats)
    except UnidentifiedImageError as error:
        known = f"{', '.join(formats[:-1])} or {formats[-1]}"
        raise ImageError(
            f"The image {name} could not be read (it is no {known} file, or of a kind that Pillow does not know); give one."
        ) from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"The image {name} has more than {max_pixels:,} pixels; give a smaller one.", "too_large_image"
        ) from error
    except UNREADABLE as error:
        raise _unreadable(name, error) from error
    with opened:
        _check_header(opened, name, max_pixels)
        yield opened


def flatten_images(images: Any) -> list[Image.Image]:
    """Loads one image or (nested) lists of images into one flat list, in order; `None` entries are skipped."""
    if images is None:
        return []
    if isinstance(images, (list, tuple)):
        return [image for item in images for image in flatten_images(item)]
    return [open_image(images)]


def read_data_url(url: str, name: str = "given") -> bytes:
    """What a data URL holds, in base64 or percent-encoded.

    Raises:
        ImageError: if it has no comma, says base64 and is not, or holds half a character.
    """
    head, comma, payload = url.partition(",")
    if not comma:
        raise ImageError(f"The data URL of the image {name} has no comma; write 'data:image/png;base64,...'.")
    try:
        data = unquote_to_bytes(payload)
        return _from_base64(data) if head.lower().endswith(";base64") else data
    except ValueError as error:
        raise ImageError(
            f"The data URL of the image {name} cannot be decoded ({error}); encode the file's bytes as base64."
        ) from error


# ------------------------------------------------------------------------------------------------- what was given


def _stored(image: Mapping[str, Any]) -> Any:
    """The bytes or the path of a picture as `datasets` stores it."""
    for key in ("bytes", "path"):
        if image.get(key) is not None:
            return image[key]
    keys = ", ".join(map(repr, image))[:200] or "nothing"
    raise ImageError(
        f"The image given is a dict without 'bytes' and without a 'path' (it has {keys}); give the bytes of a file or its "
        "path."
    )


def _given(image: Image.Image, convert: Convert) -> Image.Image:
    """A PIL image, whose file may not have been decoded yet."""
    _check_header(image, "given", MAX_PIXELS)
    return _finish(image, "given", convert)


def _read(file: Any, convert: Convert) -> Image.Image:
    """An open file, from its beginning."""
    name = quoted(file.name) if isinstance(getattr(file, "name", None), str) else "given"
    if isinstance(file, io.TextIOBase):
        raise ImageError(f"The image {name} is a file that was opened as text; open it with mode 'rb'.")
    return decode_image(file, name, convert=convert)


@contextmanager
def _file(text: str, name: str) -> Iterator[BinaryIO]:
    """The file that a path, URL or base64 text stands for."""
    scheme = text[:8].lower()
    if scheme.startswith(("http://", "https://")):
        yield io.BytesIO(_download(text, name))
        return
    if scheme.startswith("data:"):
        yield io.BytesIO(read_data_url(text, name))
        return
    path = _path_of(text, name) if scheme.startswith("file://") else text
    if len(path) < 4096 and os.path.exists(path):  # longer ones are no paths anywhere
        try:
            with open(path, "rb") as file:
                yield file
        except OSError as error:
            raise _unreadable(name, error) from error
        return
    data = None
    try:
        data = _from_base64(text)
    except ValueError as error:
        if len(text) >= 1024 and "://" not in text[:32]:  # far too long for a path
            raise _unreadable(name, error) from error
    if data is None or not (data.startswith(_MAGIC) or len(text) >= 1024):
        raise ImageError(
            f"The image {name} does not exist, nor is it base64 text of one; give a path, an http(s) URL "
            "or a PIL image.",
            "missing_image",
        )
    yield io.BytesIO(data)


def _path_of(url: str, name: str) -> str:
    """The path in a `file://` URL."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _unreadable(name, error) from error
    if parts.netloc.lower() not in ("", "localhost"):
        raise ImageError(
            f"The image {name} is on another computer; copy it to this one, and give 'file:///' and its path.",
            "missing_image",
        )
    return url2pathname(parts.path)


def _from_base64(text: str | bytes) -> bytes:
    """Raises `ValueError` for anything else."""
    data = text.encode("ascii") if isinstance(text, str) else text
    return base64.b64decode(b"".join(data.split()), validate=True)


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
                    raise ImageError(
                        f"The image {name} is larger than {MAX_DOWNLOAD_BYTES:,} bytes; give a smaller one.",
                        "too_large_image",
                    )
    except ImageError:
        raise
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
        raise _unreadable(name, error) from error
    return bytes(data)


# ------------------------------------------------------------------------------------------------ how it turns out


def _check_header(image: Image.Image, name: str, max_pixels: int) -> None:
    """What can be told before a picture is decoded."""
    _check_size(image.width, image.height, name, max_pixels)
    try:
        check_cost(image, name)
    except ImageError:
        raise
    except UNREADABLE as error:
        raise _unreadable(name, error) from error


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    size = f"The image {name} has {width}x{height} pixels, but"
    if min(width, height) < 1:
        raise ImageError(f"{size} a picture has at least one; give another.", "unusable_image")
    if width * height > max_pixels:
        raise ImageError(f"{size} at most {max_pixels:,} are read; give a smaller one.", "too_large_image")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise ImageError(
            f"{size} one side may be at most {MAX_ASPECT_RATIO} times the other; crop it.", "unusable_image"
        )


def _finish(image: Image.Image, name: str, convert: Convert) -> Image.Image:
    """Decoded, upright, converted, and nothing else."""
    try:
        image.load()
        turn = _TURNS.get(_orientation(image))
        is_plain = turn is None and type(image) is Image.Image and image.mode == "RGB" and not image.info
        if is_plain and convert is to_rgb:
            return image
        finished = convert(image, name)
        finished = finished if turn is None else finished.transpose(turn)
    except ImageError:
        raise
    except UNREADABLE as error:
        raise _unreadable(name, error) from error
    finished.info = {}  # what it was said there is done
    return finished


def _orientation(image: Image.Image) -> int:
    """From 1 (upright) to 8, as EXIF numbers them."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except UNREADABLE:  # a damaged entry is no reason to refuse the picture
        return 1


def quoted(text: str) -> str:
    """How messages name what was given: on one line, printable, and not too long."""
    shown = " ".join(text[:200].split())
    return f"'{shown.encode('utf-8', 'backslashreplace').decode()}'"


def _unreadable(name: str, error: BaseException) -> ImageError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return ImageError(
        f"The image {name} could not be read ({reason}); give a path, URL or PIL image of an undamaged file."
    )
