"""The pictures of a training row: at which size each is, and as what the vision encoder reads it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from ...common.navit_images import navit_patches
from ...families.sizes import nearest_bucket

__all__ = ["RowSizes", "prompt_patches"]


class RowSizes:
    """Chooses sizes as the checkpoint's processor does.

    Args:
        processor: the checkpoint's.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def size(self, row: Mapping[str, Any], picture: Image.Image) -> tuple[int, int]:
        """`(height, width)` of what a row draws: its own, or the nearest listed one.

        Args:
            row: as it was read.
            picture: the drawn one, opened.

        Raises:
            ValueError: for a size that cannot be drawn.
        """
        if row.get("height"):
            asked = (int(row["height"]), int(row["width"]))
            self.processor.abilities.check_size(*asked)
            return asked
        return nearest_bucket(picture.height, picture.width, self.processor.abilities.sizes)


def prompt_patches(image_processor: Any, picture: Image.Image) -> np.ndarray:
    """A picture as the language model's vision encoder reads it: patches `(rows, cols, values)`, float32, before they are
    merged, those of a merged one behind each other.
    """
    vision, _ = navit_patches(image_processor, [picture], {})
    _, rows, cols = vision["image_grid_thw"][0]
    return np.asarray(vision["pixel_values"], dtype=np.float32).reshape(int(rows), int(cols), -1)
