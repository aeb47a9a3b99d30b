"""Image files that are damaged, unusual or made to do damage."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

from PIL import Image

from helpers import picture

START_OF_SCAN, END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def _png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG of a few hundred bytes whose header announces 3.6 billion pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _png_chunk(b"IHDR", header) + _png_chunk(b"IDAT", zlib.compress(b"\0" * 64))


def many_scans(count: int, image: Image.Image | None = None, kind: str = "JPEG") -> bytes:
    """A JPEG file whose last scan comes again and again; with the kind "MPO" a second picture follows."""
    image = picture(1) if image is None else image
    more = {"save_all": True, "append_images": [image.copy()]} if kind == "MPO" else {}
    whole = encoded(image, kind, progressive=True, **more)
    end = whole.index(END_OF_IMAGE)
    scan = whole[whole.rindex(START_OF_SCAN, 0, end) : end]
    return whole[:end] + scan * count + whole[end:]


def tiff(*tags: tuple[int, int, bytes]) -> bytes:
    """A TIFF file of tags `(number, count, values)`; values are two or four bytes each and those of one tag alike."""
    place = 8 + 2 + 12 * len(tags) + 4
    directory, behind = struct.pack("<H", len(tags)), b""
    for number, count, values in sorted(tags):
        kind = {1: 7, 2: 3, 4: 4}.get(len(values) // count, 7)
        directory += struct.pack("<HHI", number, kind, count)
        if len(values) <= 4:
            directory += values.ljust(4, b"\0")
        else:
            directory += struct.pack("<I", place + len(behind))
            behind += values
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + behind


def _tiff_of(width: int, height: int, data: bytes, compression: int, *more: tuple[int, int, bytes]) -> bytes:
    """A gray TIFF file whose one part is `data`, behind everything else; `more` says whether it is a strip or a tile."""
    head = [(256, 1, _int(width)), (257, 1, _int(height)), (258, 1, _short(8)), (262, 1, _short(1))]
    head += [(259, 1, _short(compression)), (277, 1, _short(1)), *more]
    offset = 324 if any(number == 322 for number, _, _ in more) else 273
    size = 325 if offset == 324 else 279
    place = len(tiff(*head, (offset, 1, _int(0)), (size, 1, _int(0))))
    return tiff(*head, (offset, 1, _int(place)), (size, 1, _int(len(data)))) + data


def tiff_of_many_scans(count: int, image: Image.Image | None = None) -> bytes:
    """A TIFF file with a JPEG strip of many scans in it."""
    image = (picture(1) if image is None else image).convert("L")
    return _tiff_of(*image.size, many_scans(count, image), 7, (278, 1, _int(image.height)))


def tiff_of_a_huge_tile(side: int = 16_000) -> bytes:
    """A TIFF file of 16x16 pixels whose tile is so large that it fills the memory."""
    return _tiff_of(16, 16, zlib.compress(bytes(1000)), 8, (322, 1, _int(side)), (323, 1, _int(side)))


def _int(value: int) -> bytes:
    return struct.pack("<I", value)


def _short(value: int) -> bytes:
    return struct.pack("<H", value)


def damaged_exif(kind: str) -> bytes:
    """A picture whose EXIF entry ends in the middle of its second entry."""
    exif = b"Exif\0\0II*\0" + _int(8) + _short(5) + struct.pack("<HHIHH", 0x010E, 2, 2**31, 1, 0) + b"\x99" * 3
    return encoded(picture(1), kind, exif=exif)


def motion_photo() -> bytes:
    """A photo with a film behind it, in which the mark of a scan comes by chance, again and again."""
    return encoded(picture(1), "JPEG") + (START_OF_SCAN + b"film") * 500


def write_refused(folder: Path) -> dict[str, Path]:
    """Files that no door may accept, by what is wrong with them."""
    whole = encoded(picture(1), "PNG")
    files = {
        "bomb": bomb(),
        "bomb below Pillow's own limit": bomb(9_000, 9_000),
        "truncated png": whole[: len(whole) // 2],
        "truncated jpeg": encoded(picture(1), "JPEG")[:400],
        "empty": b"",
        "text": b"This is not a picture. " * 100,
        "wrong type": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n" + b"showpage\n" * 50,
        "20,000x1": encoded(Image.new("RGB", (20_000, 1)), "PNG"),
        "many scans": many_scans(200),
        "many scans, two pictures": many_scans(200, kind="MPO"),
        "many scans in a tiff": tiff_of_many_scans(200),
        "huge tile": tiff_of_a_huge_tile(),
        "not a number": encoded(Image.new("F", (8, 8), float("nan")), "TIFF"),
        "no range": encoded(Image.new("I", (8, 8), 2**20), "TIFF"),
    }
    for name, data in files.items():
        (folder / f"{name}.png").write_bytes(data)
    return {name: folder / f"{name}.png" for name in files}


def write_accepted(folder: Path) -> dict[str, Path]:
    """Unusual files that every door must read, by what is unusual."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    palette = picture(2).quantize(16)
    animated = [picture(3), picture(4)]
    files = {
        "exif.jpg": encoded(picture(1, 128, 96), "JPEG", exif=exif),
        "cmyk.jpg": encoded(picture(1).convert("CMYK"), "JPEG"),
        "palette with alpha.png": encoded(palette, "PNG", transparency=0),
        "animated.gif": encoded(animated[0], "GIF", save_all=True, append_images=animated[1:]),
        "1x1.png": encoded(Image.new("RGB", (1, 1), "red"), "PNG"),
        "16 bits.png": encoded(Image.new("I;16", (40, 30), 30_000), "PNG"),
        "alpha.png": encoded(Image.new("RGBA", (40, 30), (255, 0, 0, 0)), "PNG"),
        "two pictures.jpg": many_scans(0, kind="MPO"),
        "film behind.jpg": motion_photo(),
        "damaged exif.jpg": damaged_exif("JPEG"),
        "damaged exif.png": damaged_exif("PNG"),
        "damaged exif.webp": damaged_exif("WEBP"),
        "float.tiff": encoded(Image.new("F", (40, 30), 0.5), "TIFF"),
        "int32.tiff": encoded(Image.new("I", (40, 30), 128), "TIFF"),
        "lab.tiff": encoded(Image.new("LAB", (40, 30), (128, 128, 128)), "TIFF"),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return {name: folder / name for name in files}
