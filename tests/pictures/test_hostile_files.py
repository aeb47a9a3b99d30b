"""Decoding images that may be hostile."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from helpers import picture
from wallaroo_hf.pictures.opening import decode_image


def _file(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def _png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG whose header says what it likes."""

    def chunk(kind: bytes, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_known_formats(kind):
    image = decode_image(_file(picture(1), kind))
    assert image.mode == "RGB" and image.size == (128, 96)
    assert abs(np.asarray(image, int) - np.asarray(picture(1), int)).mean() < 12  # some lose a little


@pytest.mark.parametrize("kind", ["PPM", "ICO", "PDF"])
def test_other_formats(kind):
    with pytest.raises(ValueError, match="it is no PNG"):
        decode_image(_file(picture(1), kind))


@pytest.mark.parametrize(
    "data", [b"", b"\x89PNG", b"GIF89a", b"hello", b"<svg/>", b"BM" + bytes(60), b"\xff\xd8\xff\xe0"]
)
def test_no_image(data):
    with pytest.raises(ValueError, match="could not be read"):
        decode_image(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_truncated(kind):
    whole = _file(picture(1), kind)
    for length in (len(whole) // 2, len(whole) * 3 // 4):
        with pytest.raises(ValueError, match="could not be read"):
            decode_image(whole[:length])


def test_noise_after_a_good_header():
    """Whatever Pillow's readers stumble over becomes one kind of error."""
    random = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
        whole = _file(picture(1), kind)
        for _ in range(40):
            damaged = bytearray(whole)
            for place in random.integers(4, len(whole), 12):
                damaged[place] = random.integers(256)
            try:
                assert decode_image(bytes(damaged), max_pixels=10**6).mode == "RGB"
            except ValueError as error:
                assert str(error).startswith("The ")


def test_the_header_is_enough_to_refuse(monkeypatch):
    """Nothing is decoded of a picture that says it is too large."""
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    for width, height in ((50_000, 50_000), (10_000, 8000), (2**30, 2**30)):
        with pytest.raises(ValueError, match="give a smaller one"):
            decode_image(_png(width, height, zlib.compress(bytes(1000))))
    with pytest.raises(ValueError, match="has 40x50 pixels, but at most 1,999"):
        decode_image(_png(40, 50), max_pixels=1999)


def test_jpegs_of_many_scans():
    """A scan of a few bytes costs as much as one of all pixels."""
    data = _file(picture(1), "JPEG", progressive=True)
    assert 1 < data.count(b"\xff\xda") < 20 and decode_image(data).size == (128, 96)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(ValueError, match="more than 100 scans"):
        decode_image(data[:-2] + data[last:-2] * 200 + data[-2:])


def test_long_and_thin():
    with pytest.raises(ValueError, match="has 20000x1 pixels, but one side may be at most 200 times the other"):
        decode_image(_file(Image.new("RGB", (20_000, 1))))
    assert decode_image(_file(Image.new("RGB", (1, 1)))).size == (1, 1)


def test_turned_as_the_camera_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    image = Image.new("RGB", (40, 20), "blue")
    image.paste("red", (0, 0, 20, 20))
    turned = decode_image(_file(image, "JPEG", exif=exif, quality=95))
    assert turned.size == (20, 40)
    assert turned.getpixel((10, 5))[0] > 200 and turned.getpixel((10, 35))[2] > 200


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB key", "L key"])
def test_transparent_parts_are_white(mode):
    if mode in ("RGBA", "LA"):
        image = Image.new(mode, (8, 4), (0,) * len(mode))
        image.paste(Image.new(mode, (4, 4), (0,) * (len(mode) - 1) + (255,)))
        data = _file(image)
    else:
        image = Image.new(mode.split()[0], (8, 4), 1 if mode != "RGB key" else (1, 2, 3))
        image.paste(0 if mode != "RGB key" else (0, 0, 0), (0, 0, 4, 4))
        if mode == "P":
            image.putpalette([0, 0, 0, 9, 9, 9])
        data = _file(image, transparency=1 if mode != "RGB key" else (1, 2, 3))
    decoded = decode_image(data)
    assert decoded.getpixel((1, 1)) == (0, 0, 0) and decoded.getpixel((6, 1)) == (255, 255, 255)


def test_cmyk():
    decoded = decode_image(_file(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    red, green, blue = decoded.getpixel((4, 4))
    assert red > 200 and green < 60 and blue < 60


def test_sixteen_bits_are_scaled_not_clipped():
    deep = Image.fromarray(np.array([[0, 256 * 100, 65535]], np.uint16))
    assert [decode_image(_file(deep)).getpixel((x, 0))[0] for x in range(3)] == [0, 100, 255]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_show_their_first_frame(kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "blue")]
    data = _file(frames[0], kind, save_all=True, append_images=frames[1:])
    red, _, blue = decode_image(data).getpixel((8, 8))
    assert red > 200 and blue < 60
