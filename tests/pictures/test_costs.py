"""Small files that would cost much to decode."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFile, TiffImagePlugin

import hostile
from helpers import picture
from wallaroo_hf.pictures import costs
from wallaroo_hf.pictures.jpeg import count_scans
from wallaroo_hf.pictures.opening import decode_image, open_header, open_image


@pytest.fixture
def undecodable(monkeypatch):
    """Fails where anything is decoded."""
    for reader in (ImageFile.ImageFile, TiffImagePlugin.TiffImageFile):
        monkeypatch.setattr(reader, "load", lambda self: pytest.fail("it was decoded"))


@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
def test_scans_are_counted_in_every_kind_of_jpeg(kind, undecodable):
    data = hostile.many_scans(200, kind=kind)
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.format == kind
        for given in (data, io.BytesIO(data), opened):
            with pytest.raises(ValueError, match="JPEG in more than 100 scans"):
                open_image(given)


def test_scans_are_counted_in_tiff_files(undecodable):
    with pytest.raises(ValueError, match="JPEG in more than 100 scans"):
        decode_image(hostile.tiff_of_many_scans(200))


def test_jpeg_in_tiff_files_is_read():
    for data in (hostile.tiff_of_many_scans(10), hostile.encoded(picture(1), "TIFF", compression="jpeg")):
        shown = np.asarray(decode_image(data).convert("L"), int)
        assert np.abs(shown - np.asarray(picture(1).convert("L"), int)).mean() < 5


def test_the_larger_a_picture_the_fewer_scans(undecodable):
    """8 million pixels 61 times are still read, 64 million no more than 20 times."""
    large = hostile.many_scans(60, Image.new("L", (8000, 8000)))
    with pytest.raises(ValueError, match="8000x8000 pixels is coded as JPEG in more than 20 scans"):
        decode_image(large)
    with open_header(hostile.many_scans(60, Image.new("L", (4000, 2000)))):
        pass


def test_only_the_picture_itself_counts():
    """Neither what follows it (a film, further pictures), nor what is skipped in front of it."""
    plain = hostile.encoded(picture(1), "JPEG")
    assert count_scans(plain) == 1
    assert decode_image(hostile.motion_photo()).tobytes() == decode_image(plain).tobytes()
    preview = hostile.START_OF_SCAN * 20_000
    with_preview = hostile.encoded(picture(1), "JPEG", comment=preview)
    assert count_scans(with_preview) == 1
    assert decode_image(with_preview).tobytes() == decode_image(plain).tobytes()
    two = hostile.many_scans(0, kind="MPO")
    assert two.count(hostile.START_OF_SCAN) == 2 * count_scans(two)


def test_marks_that_a_decoder_skips_hide_nothing():
    """Filling bytes, restart marks and an end of image within a segment that is skipped."""
    whole = hostile.many_scans(200)
    filled = whole.replace(hostile.START_OF_SCAN, b"\xff" + hostile.START_OF_SCAN)
    comment = b"\xff\xfe\x00\x06" + hostile.END_OF_IMAGE * 2
    for data in (whole, filled, whole[:2] + comment + whole[2:]):
        assert count_scans(data) > 200
    restarts = hostile.encoded(picture(1), "JPEG", restart_marker_blocks=2)
    assert restarts.count(b"\xff\xd0") > 2 and count_scans(restarts) == 1
    assert count_scans(whole[: len(whole) // 2]) > 90  # broken off


def test_tiles_that_are_larger_than_their_picture(undecodable):
    with pytest.raises(ValueError, match="tiles of 16000x16000 pixels for a picture of 16x16"):
        decode_image(hostile.tiff_of_a_huge_tile())


def test_usual_tiles_are_read():
    assert decode_image(hostile.encoded(picture(1), "TIFF", tiffinfo={322: 512, 323: 512})).size == (128, 96)
    with open_header(hostile.tiff_of_a_huge_tile(512)):
        pass


def test_parts_that_lie_over_one_another(monkeypatch):
    """Each is counted, so the same scans cannot be used again and again."""
    monkeypatch.setattr(costs, "MAX_SCANNED_PIXELS", 10**9)
    whole = hostile.encoded(picture(1), "TIFF", compression="jpeg", tiffinfo={278: 8})
    with Image.open(io.BytesIO(whole)) as opened:
        opened.tag_v2[279] = tuple(len(whole) for _ in opened.tag_v2[279])
        with pytest.raises(ValueError, match="lie over one another"):
            open_image(opened)
