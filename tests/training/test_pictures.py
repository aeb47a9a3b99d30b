"""Opening pictures."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

import hostile
from helpers import picture
from wallaroo_hf.processing.image_processor import open_image
from wallaroo_hf.training.data.training_rows import RowError
from wallaroo_hf.training.pictures import MAX_PIXELS, check_picture, open_picture, stored_picture


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def bomb(width, height):
    """A PNG of a few bytes whose header promises many pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_every_form_gives_the_same(tmp_path):
    image = picture(1)
    path = tmp_path / "a.png"
    path.write_bytes(png(image))
    forms = [
        image,
        path,
        str(path),
        png(image),
        {"bytes": png(image), "path": None},
        {"bytes": None, "path": str(path)},
    ]
    for form in forms:
        check_picture(form)
        assert open_picture(form).tobytes() == image.tobytes()
        assert open_picture(stored_picture(form)).tobytes() == image.tobytes()
    assert stored_picture(path) == {"bytes": path.read_bytes(), "path": "a.png"}


def test_pictures_are_opened_as_the_processor_does(tmp_path):
    """Upright by their EXIF entry, and RGB."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    picture(1).convert("RGBA").save(tmp_path / "turned.png", exif=exif)
    opened = open_picture(str(tmp_path / "turned.png"))
    assert opened.size == (96, 128) and opened.mode == "RGB"
    assert opened.tobytes() == open_image(tmp_path / "turned.png").tobytes()


@pytest.mark.parametrize("decode", [True, False])
def test_bombs_are_found_in_the_header(decode):
    side = int(MAX_PIXELS**0.5)
    check_picture(bomb(side, side), decode=False)  # as large as allowed
    for width, height in ((side + 1, side + 1), (60_000, 60_000)):
        with pytest.raises(RowError, match="pixels") as error:
            check_picture(bomb(width, height), decode)
        assert error.value.reason == "too_large_image"


def broken_forms(tmp_path):
    whole = png(picture(1))
    (tmp_path / "empty.png").touch()
    (tmp_path / "pixels.ppm").write_bytes(b"P6 1 1 255 abc")
    return [
        (whole[: len(whole) // 2], "broken_image"),
        (b"", "broken_image"),
        (b"not an image", "broken_image"),
        (str(tmp_path / "empty.png"), "broken_image"),
        (str(tmp_path / "pixels.ppm"), "broken_image"),  # a format that is not on the list
        (None, "broken_image"),
        ({"bytes": None, "path": None}, "broken_image"),
        (7, "broken_image"),
        (hostile.many_scans(200), "unusable_image"),
        (hostile.tiff_of_many_scans(200), "unusable_image"),
        (hostile.encoded(Image.new("RGB", (20_000, 1)), "PNG"), "unusable_image"),
        (Image.new("I", (4, 4), -1), "unusable_image"),
        (str(tmp_path / "nowhere.png"), "missing_image"),
        (str(tmp_path), "missing_image"),
        ("https://example.com/a.png", "missing_image"),
        ("zip://a.png::https://example.com/a.zip", "missing_image"),
        (f"zip://a.png::{tmp_path / 'a.zip'}", "missing_image"),
        (f"file://{tmp_path / 'empty.png'}", "missing_image"),  # nobody said where the data is
    ]


def test_broken_pictures_say_why(tmp_path):
    for form, reason in broken_forms(tmp_path):
        for function in (check_picture, open_picture, stored_picture):
            with pytest.raises(RowError) as error:
                function(form)
            assert error.value.reason == reason, form
            assert str(error.value).endswith(".") and "\n" not in str(error.value)


def test_half_a_picture_has_a_whole_header():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    half = png(noise)[:6000]
    check_picture(half, decode=False)
    with pytest.raises(RowError, match="could not be read"):
        check_picture(half)
