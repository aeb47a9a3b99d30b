"""Pictures: files that are damaged at random, arrays, tensors, modes of Pillow and words, at the one door for all."""

from __future__ import annotations

import base64
import io
import random
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageChops

import hostile
from golden import GoldenSet
from helpers import picture
from wallaroo_hf.pictures.opening import MAX_PIXELS, ImageError, open_image

from .kind import Kind, Refused
from .made_up import of_other_range

CPU_SECONDS = 15  # of one case: far more than the largest picture takes
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB", "HSV", "I", "F")
MODES += ("I;16", "I;16L", "I;16B", "I;16N")
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def corpus() -> list[bytes]:
    """Files of every kind that is read, in every mode that the kind has, and the hostile ones."""
    files: list[bytes] = []
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "words"
    small = picture(1, 48, 36)
    modes = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "F", "I;16", "I;16B")
    options: dict[str, list[dict[str, Any]]] = {
        "PNG": [{}, {"exif": exif}, {"save_all": True, "append_images": [small]}],
        "JPEG": [
            {},
            {"progressive": True, "exif": exif},
            {"restart_marker_blocks": 2},
            {"quality": 95, "subsampling": 0},
        ],
        "MPO": [{"save_all": True, "append_images": [small], "exif": exif}],
        "WEBP": [{}, {"lossless": True, "exif": exif}, {"save_all": True, "append_images": [small]}],
        "GIF": [{}, {"save_all": True, "append_images": [small]}],
        "BMP": [{}],
        "TIFF": [
            *(
                {"compression": name}
                for name in ("raw", "packbits", "tiff_lzw", "tiff_deflate", "jpeg", "zstd", "lzma")
            ),
            *({"compression": name} for name in ("group3", "group4", "webp")),
            {"tiffinfo": {322: 16, 323: 16}, "compression": "tiff_deflate"},
            {"exif": exif, "big_tiff": True},
        ],
    }
    for kind, choices in options.items():
        for mode in modes:
            for choice in choices:
                try:
                    files.append(hostile.encoded(_in_mode(small, mode), kind, **choice))
                except (OSError, ValueError, KeyError, TypeError, RuntimeError):
                    continue  # the kind has no such mode
    with tempfile.TemporaryDirectory() as folder:
        for writer in (hostile.write_accepted, hostile.write_refused):
            files += [path.read_bytes() for path in writer(Path(folder)).values()]
    return files


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode in ("I;16", "I;16B"):
        values = np.asarray(image.convert("L")).astype(">u2" if mode == "I;16B" else "<u2") * 200
        return Image.frombytes(mode, image.size, values.tobytes())
    if mode in ("LAB", "PA"):
        return Image.merge("LAB", image.split()) if mode == "LAB" else image.quantize(16).convert("PA")
    return image.convert(mode)


# ------------------------------------------------------------------------------------------------------ what is given


def damaged_file(random: np.random.Generator, files: list[bytes]) -> Any:
    """A file with some damage, in any form in which files are given."""
    data = bytearray(files[random.integers(len(files))])
    for _ in range(random.integers(0, 4)):
        damage(random, data, files)
    whole = bytes(data)
    form = random.integers(8)
    text = base64.b64encode(whole).decode()
    if form == 0:
        return io.BytesIO(whole)
    if form == 1:
        return text
    if form == 2:
        return f"data:image/png;base64,{text}"
    if form == 3:
        return {"bytes": whole, "path": "a.png"}
    if form == 4:
        try:
            return Image.open(io.BytesIO(whole), formats=("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"))
        except Exception:  # Pillow's own; wanted is what it opens
            return whole
    return whole


def damage(random: np.random.Generator, data: bytearray, files: list[bytes]) -> None:
    """One change: bytes, numbers, parts that are missing, twice there or from another file."""
    if not data:
        return
    place = int(random.integers(len(data)) if random.random() < 0.5 else random.integers(min(len(data), 300)))
    length = int(random.integers(1, 2 + len(data) // 4))
    kind = random.integers(7)
    if kind == 0:
        data[place] = random.integers(256)
    elif kind == 1:
        data[place] ^= 1 << random.integers(8)
    elif kind == 2:
        size = int(random.choice([1, 2, 4]))
        number = int(random.choice(EXTREMES)) % 256**size
        data[place : place + size] = number.to_bytes(size, "big" if random.random() < 0.5 else "little")
    elif kind == 3:
        del data[place : place + length]
    elif kind == 4:
        data[place:place] = data[place : place + length] * int(random.integers(1, 5))
    elif kind == 5:
        other = files[random.integers(len(files))]
        start = int(random.integers(1 + len(other)))
        data[place : place + length] = other[start : start + length]
    else:
        del data[place:]


def array(random: np.random.Generator, _: list[bytes]) -> Any:
    """An array or tensor of any shape, type and values."""
    shape = random.integers(0, 9, random.integers(0, 5)).tolist()
    if random.random() < 0.6:
        height, width, channels = int(random.integers(0, 70)), int(random.integers(0, 70)), int(random.integers(1, 6))
        shape = [[height, width], [height, width, channels], [channels, height, width]][random.integers(3)]
    scale = float(random.choice([0, 1, 1.01, 2, 255, 256, 4000, 65535, 1e6, 1e300]))
    values = np.asarray(random.random(shape) * scale - (random.random() < 0.2) * scale / 2)
    if values.size and random.random() < 0.1:
        values.flat[random.integers(values.size)] = random.choice([np.nan, np.inf, -np.inf])
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if random.random() < 0.5:
            names = (
                "bool uint8 int8 uint16 int16 uint32 int32 uint64 int64 float16 float32 float64 longdouble complex64"
            )
            return values.astype(str(random.choice([*names.split(), ">u2", ">f4", "S3", "O"])))
        names = "bool uint8 int8 int16 int32 int64 float16 bfloat16 float32 float64 complex64 float8_e4m3fn uint16"
        tensor = torch.from_numpy(values).to(getattr(torch, str(random.choice(names.split()))))
    is_sparse = random.random() < 0.1 and tensor.ndim > 0 and tensor.dtype in (torch.float32, torch.int64)
    return tensor.to_sparse() if is_sparse else tensor


def made_picture(random: np.random.Generator, _: list[bytes]) -> Any:
    """A PIL image of any mode, with entries that may be wrong for it."""
    mode = str(random.choice(MODES))
    image = Image.new(mode, (int(random.integers(0, 60)), int(random.integers(0, 60))))
    if image.width * image.height and mode in ("I", "F") and random.random() < 0.8:
        image.putpixel(
            (0, 0), float(random.choice([1, 0.3, 255, 300, 65535, -1, 1e9])).__int__() if mode == "I" else 0.7
        )
    junk: list[Any] = [b"", b"\0\1", 0, 300, -1, "words", (1, 2, 3), (1, 2), None, b"Exif\0\0II*\0", [1], 1.5]
    for key in (
        "transparency",
        "exif",
        "xmp",
        "XML:com.adobe.xmp",
        "Raw profile type exif",
        "icc_profile",
        "background",
    ):
        if random.random() < 0.15:
            image.info[key] = junk[random.integers(len(junk))]
    return image


def words(random: np.random.Generator, _: list[bytes]) -> Any:
    """Text that is no picture, and things that are not even text."""
    parts = [
        "data:",
        "image/png",
        ";base64",
        ",",
        "file://",
        "localhost",
        "/",
        "..",
        "a.png",
        "%",
        "%00",
        "\0",
        "\ud800",
    ]
    parts += [
        "ftp://",
        "zip://",
        "[",
        "]",
        "::",
        "iVBORw0KGgo",
        "/9j/",
        "R0lGODlhAQABAA",
        "=",
        "\n",
        " ",
        "é",
        "x" * 300,
    ]
    odd: list[Any] = [
        None,
        3,
        1.5,
        object(),
        {},
        {"path": 3},
        {"bytes": "text"},
        {"bytes": 7},
        io.StringIO("x"),
        set(),
    ]
    if random.random() < 0.2:
        return odd[random.integers(len(odd))]
    return "".join(parts[index] for index in random.integers(len(parts), size=random.integers(0, 9)))


MAKERS: tuple[tuple[Callable[..., Any], float], ...] = (
    (damaged_file, 0.7),
    (array, 0.15),
    (made_picture, 0.08),
    (words, 0.07),
)


class Pictures(Kind):
    """Everything that may be given as a picture: it is read as RGB, or refused in one sentence, in bounded time."""

    def __init__(self, golden: GoldenSet, folder: Path) -> None:
        super().__init__(golden, folder)
        self.files = corpus()

    def round(self, rng: random.Random) -> None:
        """Opens something; of numbers in another range the same must be seen as of those in eight bits."""
        if rng.random() < 0.05:
            given, plain = of_other_range(rng)
            difference = ImageChops.difference(open_image(given), plain.convert("RGB"))
            assert max(high for _, high in difference.getextrema()) <= 1, type(given)
            return
        noise = np.random.default_rng(rng.getrandbits(64))
        makers, shares = zip(*MAKERS)
        given = makers[noise.choice(len(makers), p=shares)](noise, self.files)
        began = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self.open(given)
            finally:
                assert time.process_time() - began < CPU_SECONDS

    def open(self, given: Any) -> None:
        """Opens a picture and looks at it."""
        try:
            opened = open_image(given)
        except ImageError as error:
            said = str(error)
            said.encode()
            assert said.startswith("The ") and said.endswith(".") and "\n" not in said and len(said) < 700, said
            raise Refused from error
        assert type(opened) is Image.Image and opened.mode == "RGB" and opened.info == {}, (opened, opened.info)
        assert 0 < opened.width * opened.height <= MAX_PIXELS and open_image(opened) is opened
