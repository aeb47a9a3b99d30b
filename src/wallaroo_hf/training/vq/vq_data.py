"""Where the image tokenizer's training images come from: a folder, a list, or the built-in scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...pictures.opening import open_image
from ...scenes.palette import BACKGROUND_COLOURS, COLOURS
from ...scenes.render import tile
from ...scenes.shapes import SHAPES, SLOT
from ..data.readers import is_hidden

__all__ = ["ImageSource", "image_files", "random_crops", "scene_canvases"]

ImageSource = Callable[[torch.Generator], torch.Tensor]
"""Gives a batch `(B, 3, H, W)` float32 in [-1, 1]; equal generator states give equal batches."""

_EXTENSIONS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
# Sides of canvases in slots, (rows, cols), and how often: small ones cost less and show as many patches per pixel.
_CANVASES = (((2, 2), 0.7), ((3, 3), 0.1), ((2, 4), 0.1), ((4, 2), 0.1))


def image_files(folder: str | Path) -> list[Path]:
    """All PNG, JPEG, WebP and BMP files in a folder and below, sorted.

    Raises:
        ValueError: if there is no such folder, or no image in it.
    """
    folder = Path(folder)
    files = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in _EXTENSIONS and not is_hidden(path, folder)
    )
    if not files:
        what = "holds no PNG, JPEG, WebP or BMP files" if folder.is_dir() else "is no folder"
        raise ValueError(f"'{folder}' {what}; give a folder with images.")
    return files


def random_crops(images: Sequence[str | Path | Image.Image], image_size: int, batch_size: int) -> ImageSource:
    """Square crops of images, at random positions and half of them mirrored; images are opened when they are needed.

    An image whose shorter side is below `image_size` is enlarged until it is covered.

    Raises:
        ValueError: if there are no images or `image_size` is not positive.
    """
    if not images or image_size < 1:
        raise ValueError(
            f"{len(images)} images and a crop size of {image_size} were given; give at least one of each."
        )

    def batch(generator: torch.Generator) -> torch.Tensor:
        return torch.stack([_crop(images[_below(len(images), generator)], generator) for _ in range(batch_size)])

    def _crop(image: str | Path | Image.Image, generator: torch.Generator) -> torch.Tensor:
        opened = open_image(image)
        scale = image_size / min(opened.size)
        if scale > 1:
            size = (round(opened.width * scale), round(opened.height * scale))
            opened = opened.resize(size, Image.Resampling.BICUBIC)
        left = _below(opened.width - image_size + 1, generator)
        top = _below(opened.height - image_size + 1, generator)
        pixels = np.asarray(opened.crop((left, top, left + image_size, top + image_size)))
        cropped = _to_unit(torch.from_numpy(pixels.copy()).permute(2, 0, 1))
        return cropped.flip(-1) if _below(2, generator) else cropped

    return batch


def scene_canvases(batch_size: int) -> ImageSource:
    """Canvases of the built-in scenes: each slot empty or with any shape in any colour, more of them than scenes have.

    All canvases of a batch have one size, their own background, and their own share of filled slots.
    """
    tiles = _scene_tiles()
    num_objects = tiles.shape[1] - 1
    grids = [grid for grid, _ in _CANVASES]
    weights = torch.tensor([weight for _, weight in _CANVASES])

    def batch(generator: torch.Generator) -> torch.Tensor:
        rows, cols = grids[int(torch.multinomial(weights, 1, generator=generator))]
        shape = (batch_size, rows, cols)
        backgrounds = torch.randint(len(tiles), (batch_size, 1, 1), generator=generator).expand(shape)
        things = torch.randint(num_objects, shape, generator=generator) + 1
        fill = torch.rand(batch_size, 1, 1, generator=generator).sqrt()  # full canvases teach most per pixel
        things = torch.where(torch.rand(shape, generator=generator) < fill, things, 0)
        canvas = tiles[backgrounds, things].permute(0, 3, 1, 4, 2, 5)  # (B, 3, rows, SLOT, cols, SLOT)
        return canvas.reshape(batch_size, 3, rows * SLOT, cols * SLOT)

    return batch


def _scene_tiles() -> torch.Tensor:
    """`(backgrounds, 1 + shapes * colours, 3, SLOT, SLOT)` float32 in [-1, 1]; the first tile is empty."""
    every = []
    for background, rgb in BACKGROUND_COLOURS.items():
        empty = np.broadcast_to(np.array(rgb, dtype=np.uint8), (SLOT, SLOT, 3))
        every.append(np.stack([empty, *(tile(shape, colour, background) for shape in SHAPES for colour in COLOURS)]))
    return _to_unit(torch.from_numpy(np.stack(every)).permute(0, 1, 4, 2, 3))


def _to_unit(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 to [-1, 1]."""
    return pixels.float() / 127.5 - 1


def _below(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(limit, (), generator=generator))
