"""What decoding a picture would cost, told from its header: small files must not keep a processor or a memory busy."""

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from .image_errors import ImageError
from .jpeg import count_scans

MAX_JPEG_SCANS = 100  # usual files have up to about 10
MAX_SCANNED_PIXELS = 1_280_000_000  # scans times pixels: some seconds
MAX_TILE_PIXELS = 4_000_000  # of a TIFF's tile that is larger than its picture, of which all is unpacked

_JPEG_IN_TIFF = ("jpeg", "tiff_jpeg")
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_SIZES = 322, 323, 324, 325
_STRIP_HEIGHT, _STRIP_OFFSETS, _STRIP_SIZES = 278, 273, 279

__all__ = ["check_cost"]


def check_cost(image: Image.Image, name: str) -> None:
    """Raises unless a picture can be decoded in a time and a memory that go with its size.

    Args:
        image: opened, and not decoded; of one that is decoded there is nothing left to say.
        name: what messages call it.

    Raises:
        ImageError: for more than `MAX_JPEG_SCANS` scans of JPEG data or `MAX_SCANNED_PIXELS` pixels in all scans, be it in
            a JPEG file, in one with further pictures (MPO), or in a TIFF file; and for a TIFF file whose tiles are far
            larger than its picture, or lie over one another.
    """
    if getattr(image, "fp", None) is None or not getattr(image, "tile", None):
        return
    if isinstance(image, JpegImageFile):
        pixels = image.width * image.height
        scans = count_scans(_content(image, image.tile[0].offset))
        _refuse_scans(image, name, scans, scans * pixels)
    elif isinstance(image, TiffImageFile):
        _check_tiff(image, name)


def _content(image: JpegImageFile | TiffImageFile, start: int = 0) -> bytes:
    """All of a picture's file from an offset on; the file stays where it is."""
    assert image.fp is not None  # checked by who calls
    offset = image.fp.tell()
    image.fp.seek(start)
    data = image.fp.read()
    image.fp.seek(offset)
    return data


def _check_tiff(image: TiffImageFile, name: str) -> None:
    tags = image.tag_v2
    width, height = tags.get(_TILE_WIDTH), tags.get(_TILE_HEIGHT)
    offsets, sizes = tags.get(_TILE_OFFSETS), tags.get(_TILE_SIZES)
    if not (width and height):
        width, height = image.width, min(tags.get(_STRIP_HEIGHT, image.height), image.height)
        offsets, sizes = tags.get(_STRIP_OFFSETS), tags.get(_STRIP_SIZES)
    if width * height > max(MAX_TILE_PIXELS, 2 * image.width * image.height):
        raise ImageError(
            f"The image {name} is a TIFF file with tiles of {width}x{height} pixels for a picture of "
            f"{image.width}x{image.height}; save it anew.",
            "unusable_image",
        )
    if image.info.get("compression") not in _JPEG_IN_TIFF or not offsets or not sizes:
        return
    data = _content(image)
    if sum(sizes) > len(data):
        raise ImageError(f"The image {name} is a TIFF file whose parts lie over one another; save it anew.")
    scans = [count_scans(data, offset, offset + size) for offset, size in zip(offsets, sizes)]
    _refuse_scans(image, name, max(scans), sum(scans) * width * height)


def _refuse_scans(image: Image.Image, name: str, scans: int, pixels: int) -> None:
    if scans > MAX_JPEG_SCANS or pixels > MAX_SCANNED_PIXELS:
        limit = min(MAX_JPEG_SCANS, MAX_SCANNED_PIXELS // (image.width * image.height))
        raise ImageError(
            f"The image {name} of {image.width}x{image.height} pixels is coded as JPEG in more than {limit} scans; save it "
            "anew.",
            "unusable_image",
        )
