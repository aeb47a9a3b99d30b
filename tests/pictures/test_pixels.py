"""What numbers mean as a picture: arrays, tensors, and Pillow's modes."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

import hostile
from helpers import picture
from wallaroo_hf.pictures.opening import open_image

GRAY = np.asarray(picture(1).convert("L"))  # (96, 128) uint8, with 0 < min < 255 = max within it
COLOUR = np.asarray(picture(1))  # (96, 128, 3)


def _gray(given) -> np.ndarray:
    """The picture's values, all channels of which are alike."""
    opened = np.asarray(open_image(given))
    assert (opened == opened[..., :1]).all()
    return opened[..., 0]


def _reopened(image: Image.Image, kind: str = "TIFF") -> bytes:
    return hostile.encoded(image, kind)


@pytest.mark.parametrize("wrap", [lambda image: image, _reopened, lambda image: io.BytesIO(_reopened(image))])
def test_modes_of_high_range_are_scaled_by_their_values(wrap):
    """An 8-bit picture stays the same however many bits it is stored in, 16 bits are scaled, shares of white too."""
    deep = GRAY.astype(np.int32) * 257
    assert (_gray(wrap(Image.fromarray(GRAY.astype(np.int32)))) == GRAY).all()  # mode I
    assert (_gray(wrap(Image.fromarray(deep))) == GRAY).all()
    assert (_gray(wrap(Image.fromarray(GRAY.astype(np.float32)))) == GRAY).all()  # mode F
    assert (_gray(wrap(Image.fromarray(GRAY.astype(np.float32) / 255))) == GRAY).all()
    assert (_gray(wrap(Image.fromarray(deep.astype(np.float32)))) == GRAY).all()
    assert (_gray(wrap(Image.fromarray(deep.astype(np.uint16)))) == GRAY).all()  # mode I;16


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
@pytest.mark.parametrize("factor", [1, 257])
def test_modes_of_16_bits(mode, factor):
    values = GRAY.astype(np.uint16) * factor
    data = values.astype(">u2" if mode == "I;16B" else "<u2").tobytes()
    assert (_gray(Image.frombytes(mode, GRAY.shape[::-1], data)) == GRAY).all()


@pytest.mark.parametrize(
    "dtype", ["uint8", "int16", "uint16", "int32", "uint32", "int64", "float16", "float32", "float64"]
)
def test_arrays_of_8_bit_values(dtype):
    assert (np.asarray(open_image(COLOUR.astype(dtype))) == COLOUR).all()
    assert (_gray(GRAY.astype(dtype)) == GRAY).all()


@pytest.mark.parametrize("dtype", ["uint16", "int32", "int64", "float32", "float64"])
def test_arrays_of_16_bit_values(dtype):
    assert (np.asarray(open_image(COLOUR.astype(dtype) * 257)) == COLOUR).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_arrays_of_shares_of_white(dtype):
    near = np.abs(np.asarray(open_image((COLOUR / 255).astype(dtype)), int) - COLOUR)
    assert near.max() <= (1 if dtype == "float16" else 0)


@pytest.mark.parametrize("dtype", ["bool", "float16", "float32", "float64"])
def test_arrays_that_hold_only_0_and_1(dtype):
    mask = GRAY > 128
    assert (_gray(mask.astype(dtype)) == mask * 255).all()
    assert (_gray(torch.from_numpy(mask).to(getattr(torch, dtype))) == mask * 255).all()


@pytest.mark.parametrize("order", [">u2", ">f4", ">i4"])
def test_other_orders_of_bytes(order):
    assert (_gray(GRAY.astype(order)) == GRAY).all()


def test_rounding_may_leave_the_range():
    overshot = (COLOUR / 255).astype(np.float32)
    overshot[0, 0], overshot[0, 1] = 1.0005, -0.0005
    assert open_image(overshot).getpixel((0, 0)) == (255,) * 3 and open_image(overshot).getpixel((1, 0)) == (0,) * 3


SHAPES = [
    (lambda a: a, (128, 96)),  # (H, W, 3)
    (lambda a: a.transpose(2, 0, 1), (128, 96)),  # (3, H, W)
    (lambda a: a[..., 0], (128, 96)),  # (H, W)
    (lambda a: a[..., :1], (128, 96)),
    (lambda a: a[..., :1].transpose(2, 0, 1), (128, 96)),
    (lambda a: a[::-1, ::-2], (64, 96)),  # views
    (lambda a: a[:1, :5], (5, 1)),  # one row: channels stand last in arrays
    (lambda a: a[:1, :1], (1, 1)),
]


@pytest.mark.parametrize(("change", "size"), SHAPES)
def test_shapes(change, size):
    opened = open_image(change(COLOUR))
    assert opened.mode == "RGB" and opened.size == size


def test_four_and_two_channels_are_transparent():
    clear = np.dstack([COLOUR, np.full(GRAY.shape, 255, np.uint8)])
    for array in (clear, clear.transpose(2, 0, 1), clear / 255, torch.from_numpy(clear).permute(2, 0, 1)):
        assert (np.asarray(open_image(array)) == COLOUR).all()
    assert (np.asarray(open_image(np.dstack([COLOUR, np.zeros_like(GRAY)]))) == 255).all()
    assert (_gray(np.dstack([GRAY, np.full_like(GRAY, 255)])) == GRAY).all()
    # colours up to 255 with transparency up to 1
    mixed = np.dstack([COLOUR.astype(np.float32), np.ones(GRAY.shape, np.float32)])
    assert (np.asarray(open_image(mixed)) == COLOUR).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32])
def test_tensors(dtype):
    tensor = torch.from_numpy(COLOUR.copy()).to(dtype)
    for given in (tensor, tensor.permute(2, 0, 1), torch.nn.Parameter(tensor) if dtype.is_floating_point else tensor):
        assert (np.asarray(open_image(given)) == COLOUR).all()
    assert open_image(tensor.permute(2, 0, 1)[:, :4, :3]).size == (3, 4)  # channels stand first in tensors
    if dtype.is_floating_point:
        assert np.abs(np.asarray(open_image(tensor / 255), int) - COLOUR).max() <= 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (np.zeros((0, 0), np.uint8), "0x0 pixels"),
        (np.zeros((0, 5, 3)), "5x0 pixels"),
        (np.zeros((5, 0, 3), bool), "0x5 pixels"),
        (torch.zeros(3, 0, 0), "0x0 pixels"),
        (Image.new("RGB", (0, 4)), "0x4 pixels"),
        (np.full((4, 4), np.nan), "not finite"),
        (np.array([[0.5, np.inf]]), "not finite"),
        (torch.full((3, 4, 4), float("-inf"), dtype=torch.bfloat16), "not finite"),
        (Image.new("F", (4, 4), float("nan")), "not finite"),
        (np.linspace(-1, 1, 48).reshape(4, 4, 3), "from -1 to 1"),
        (np.linspace(0, 3.7, 48).reshape(4, 4, 3), "from 0 to 3.7"),  # light: which value is white is not said
        (np.full((4, 4), 300), "from 300 to 300"),
        (np.full((4, 4), 1023, np.uint16), "from 1,023 to 1,023"),
        (np.full((4, 4), -1, np.int8), "from -1 to -1"),
        (Image.new("I", (4, 4), 70_000), "from 70,000 to 70,000"),
        (Image.new("I", (4, 4), -7), "from -7 to -7"),
        (np.zeros((4, 4, 3), complex), "type complex128"),
        (np.full((4, 4), "a"), "type <U1"),
        (np.zeros((4, 4), "datetime64[s]"), "type datetime64"),
        (np.array([[None]]), "type object"),
        (np.zeros(4), r"shape \(4,\)"),
        (np.float32(4), r"shape \(\)"),
        (np.zeros((2, 4, 4, 3)), r"shape \(2, 4, 4, 3\)"),
        (np.zeros((5, 5, 5)), r"shape \(5, 5, 5\)"),
        (torch.zeros(4, 4, device="meta"), "read as an array"),
        (torch.eye(4).to_sparse(), "read as an array"),
    ],
)
def test_what_is_no_picture(given, says):
    with pytest.raises(ValueError, match=f"^The image given.*{says}.*; .*\\.$"):
        open_image(given)


def test_huge_arrays_are_refused_by_their_shape():
    with pytest.raises(ValueError, match="9000x9000 pixels"):
        open_image(np.broadcast_to(np.float64(0), (9000, 9000, 3)))


def test_modes_that_are_not_rgb():
    """Each shows the picture as Pillow does where Pillow can; the others come close."""
    source = picture(1)
    for mode in ("1", "L", "P", "RGBX", "CMYK", "YCbCr", "HSV"):
        converted = source.convert(mode)
        assert open_image(converted).tobytes() == converted.convert("RGB").tobytes(), mode
    for mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        via = {"RGBa": "RGBA", "La": "LA"}.get(mode)
        opaque = (source if via is None else source.convert(via)).convert(mode)
        expected = source.convert("L").convert("RGB") if mode in ("LA", "La") else source
        if mode == "PA":
            expected = opaque.convert("RGB")
        assert open_image(opaque).tobytes() == expected.tobytes(), mode


@pytest.mark.parametrize("mode", ["LA", "La", "RGBA", "RGBa", "PA"])
def test_transparent_modes_show_white(mode):
    if mode == "PA":
        hidden = Image.new("P", (4, 4)).convert("PA")
        hidden.putalpha(0)
    else:
        plain = mode.upper()
        hidden = Image.new(plain, (4, 4), (0,) * len(plain)).convert(mode)
    assert hidden.mode == mode and open_image(hidden).getpixel((1, 1)) == (255, 255, 255)


def test_lab():
    """Lightness 100 is white, 0 black, and the axes are those of CIELAB (a: green to red)."""
    assert min(open_image(Image.new("LAB", (2, 2), (255, 128, 128))).getpixel((0, 0))) > 252
    assert max(open_image(Image.new("LAB", (2, 2), (0, 128, 128))).getpixel((0, 0))) < 4
    red, green, _ = open_image(Image.new("LAB", (2, 2), (128, 198, 128))).getpixel((0, 0))
    assert red > 180 and green < 80
