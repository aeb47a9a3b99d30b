"""The pictures of a training row: at which size each is read, its pixels, and what was encoded ahead of it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...families.sizes import nearest_bucket
from ...training.data.row_parts import RowParts

__all__ = ["RowPictures"]

Size = tuple[int, int]


class RowPictures:
    """Reads pictures as the checkpoint's processor does: those that are drawn at a size that it draws, cropped, all others
    at a size that it sees, in its own way.

    Args:
        processor: the checkpoint's.
    """

    def __init__(self, processor: Any) -> None:
        self.processor, self.image_processor = processor, processor.image_processor

    def tokens(self, size: Size) -> int:
        """How many tokens a picture of a size has."""
        return self.processor.abilities.image_tokens(*size)

    def sizes(self, row: Mapping[str, Any], parts: RowParts) -> list[Size]:
        """`(height, width)` of each picture, in order: a row's own for those that are drawn, or the nearest listed one.

        What is drawn after a picture that is edited has the size of that picture, so that places stay where they are.

        Args:
            row: as it was read.
            parts: the same, taken apart.

        Raises:
            ValueError: for a size that cannot be drawn, and pictures encoded at another.
        """
        asked = (int(row["height"]), int(row["width"])) if row.get("height") else None
        if parts.posteriors is not None:
            return self._encoded_sizes(parts.posteriors)
        return [
            self.size(picture, is_drawn=role == "assistant" or bool(parts.drawn), asked=asked)
            for role, picture in zip(parts.roles, parts.pictures, strict=True)
        ]

    def size(self, picture: Image.Image, is_drawn: bool, asked: Size | None) -> Size:
        """The size of one picture.

        Args:
            picture: opened.
            is_drawn: whether its row draws.
            asked: what the row says.
        """
        if not is_drawn:
            return self.image_processor.pick_size(picture)
        if asked is not None:
            self.processor.abilities.check_size(*asked)
            return asked
        return nearest_bucket(picture.height, picture.width, self.processor.abilities.sizes)

    def _encoded_sizes(self, posteriors: list[Any]) -> list[Size]:
        edge, sizes = self.processor.image_token_size, []
        for one in posteriors:
            shape = np.shape(one)
            if len(shape) != 3:
                raise ValueError(
                    f"`image_latents` have the shape {shape}, but must be (values, rows, cols); encode the rows again "
                    "(`wallaroo encode`)."
                )
            sizes.append((shape[1] * edge, shape[2] * edge))
        return sizes

    def pixels(self, picture: Image.Image, size: Size, is_drawn: bool) -> np.ndarray:
        """A picture as float32 `(3, H, W)` in [-1, 1]."""
        return self.image_processor.to_pixels(picture, *size, "crop" if is_drawn else self.image_processor.fit)

    def read(self, parts: RowParts, sizes: list[Size]) -> tuple[list[Any], list[Any]]:
        """Pixels and posteriors of each picture, in order; None where there is the other."""
        if parts.posteriors is not None:
            arrays = [torch.from_numpy(np.asarray(one, dtype=np.float32)) for one in parts.posteriors]
            return [None] * len(arrays), list(arrays)
        drawn = bool(parts.drawn)
        pixels = [
            torch.from_numpy(self.pixels(picture, size, drawn))
            for picture, size in zip(parts.pictures, sizes, strict=True)
        ]
        return list(pixels), [None] * len(pixels)
