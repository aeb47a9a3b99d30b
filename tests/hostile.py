"""Image files that are damaged, unusual or made to do damage."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

from PIL import Image

from helpers import picture


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def _png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG of a few hundred bytes whose header announces 3.6 billion pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _png_chunk(b"IHDR", header) + _png_chunk(b"IDAT", zlib.compress(b"\0" * 64))


def write_refused(folder: Path) -> dict[str, Path]:
    """Files that no door may accept, by what is wrong with them."""
    whole = _encoded(picture(1), "PNG")
    files = {
        "bomb": bomb(),
        "bomb below Pillow's own limit": bomb(9_000, 9_000),
        "truncated png": whole[: len(whole) // 2],
        "truncated jpeg": _encoded(picture(1), "JPEG")[:400],
        "empty": b"",
        "text": b"This is not a picture. " * 100,
        "wrong type": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n" + b"showpage\n" * 50,
        "20,000x1": _encoded(Image.new("RGB", (20_000, 1)), "PNG"),
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
        "exif.jpg": _encoded(picture(1, 128, 96), "JPEG", exif=exif),
        "cmyk.jpg": _encoded(picture(1).convert("CMYK"), "JPEG"),
        "palette with alpha.png": _encoded(palette, "PNG", transparency=0),
        "animated.gif": _encoded(animated[0], "GIF", save_all=True, append_images=animated[1:]),
        "1x1.png": _encoded(Image.new("RGB", (1, 1), "red"), "PNG"),
        "16 bits.png": _encoded(Image.new("I;16", (40, 30), 30_000), "PNG"),
        "alpha.png": _encoded(Image.new("RGBA", (40, 30), (255, 0, 0, 0)), "PNG"),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return {name: folder / name for name in files}
