"""Images from people one does not know: bytes to RGB, with every limit checked before pixels are decoded."""

import io
import struct
import zlib

from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 2**24
MAX_ASPECT_RATIO = 200  # Qwen2-VL's image processor refuses longer ones, only later
MAX_JPEG_SCANS = 100  # each costs a pass over all pixels; usual files have up to about 10

# What Pillow's readers raise at files that are damaged or made to do damage.
_UNREADABLE = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError),
    *(RuntimeError, struct.error, zlib.error, Image.DecompressionBombError),
)

__all__ = ["FORMATS", "MAX_ASPECT_RATIO", "MAX_PIXELS", "decode_image", "on_white"]


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decodes an image file that may be hostile.

    Only the readers of `FORMATS` are tried, and the size in the file's header is checked before anything is decoded. The
    picture is turned as its EXIF entry says; transparent parts become white; of an animation the first frame is taken.

    Args:
        data: the file's bytes.
        max_pixels: largest width times height.

    Returns:
        An RGB picture that is decoded and independent of `data`.

    Raises:
        ValueError: if it is of another format, damaged, too large, or longer than `MAX_ASPECT_RATIO` times its width.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ValueError(f"The image has more than {max_pixels} pixels; send a smaller one.") from error
    except UnidentifiedImageError as error:
        raise ValueError(
            f"The {len(data)} bytes given are no image of a known format; send {', '.join(FORMATS[:-1])} or {FORMATS[-1]}."
        ) from error
    except _UNREADABLE as error:
        raise _damaged(error) from error
    width, height = image.size
    if width * height > max_pixels:
        raise ValueError(f"The image is {width}x{height}, but may have {max_pixels} pixels; send a smaller one.")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise ValueError(
            f"The image is {width}x{height}, but one side may be at most {MAX_ASPECT_RATIO} times the other; crop it."
        )
    if image.format == "JPEG" and data.count(b"\xff\xda") > MAX_JPEG_SCANS:
        raise ValueError(f"The image is a JPEG file of more than {MAX_JPEG_SCANS} scans; save it anew.")
    try:
        image.load()
        return on_white(ImageOps.exif_transpose(image))
    except _UNREADABLE as error:
        raise _damaged(error) from error


def on_white(image: Image.Image) -> Image.Image:
    """The picture as RGB; where it is transparent, white shows through."""
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits a pixel: Pillow would clip them at 255
        return image.point(lambda value: value * (1 / 256)).convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _damaged(error: BaseException) -> ValueError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return ValueError(f"The image could not be decoded ({reason}); send an undamaged file.")
