"""`HieraQueryImageProcessor`: pictures as the language model sees them, and as the image codec takes and gives them."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from ...common.navit_images import NaViTImageProcessor
from ...pictures.fitting import resize_to_fit

__all__ = ["HieraQueryImageProcessor"]


class HieraQueryImageProcessor(NaViTImageProcessor):
    r"""Qwen2-VL's image processor (PIL), plus the pixels that the image codec reads and writes.

    Calling it gives patches (`pixel_values`, `image_grid_thw`) exactly as for Qwen2.5-VL. Pixels of the codec have no
    settings: RGB, brought to a size with bicubic filtering, scaled to [-1, 1] as diffusers does.
    """

    def fit_to_size(self, image: Image.Image, height: int, width: int, fit: str = "crop") -> Image.Image:
        """Brings a picture to a size.

        Args:
            image: RGB.
            height, width: in pixels.
            fit: `"crop"` covers the size and cuts off what is over; `"pad"` keeps all of the picture and repeats its edges
                around it.

        Raises:
            ValueError: for another `fit`.
        """
        image, missing = resize_to_fit(image, height, width, fit)
        if not any(missing):
            return image
        top, bottom, left, right = missing
        return Image.fromarray(np.pad(np.asarray(image), ((top, bottom), (left, right), (0, 0)), mode="edge"))

    def to_pixels(self, image: Image.Image, height: int, width: int, fit: str = "crop") -> np.ndarray:
        """A picture at a size, float32 `(3, height, width)` in [-1, 1]; see [`~HieraQueryImageProcessor.fit_to_size`].

        Args:
            image: RGB.
            height, width: in pixels.
            fit: how it is brought to the size.
        """
        values = np.asarray(self.fit_to_size(image, height, width, fit), dtype=np.float32) / np.float32(255.0)
        return np.ascontiguousarray((2 * values - 1).transpose(2, 0, 1))

    def to_pictures(self, pixels: Sequence[torch.Tensor]) -> list[Image.Image]:
        """Pixels in [-1, 1] as pictures: `(x / 2 + 0.5) * 255`, rounded, as diffusers does.

        Args:
            pixels: `(3, H, W)` each; what is beyond [-1, 1] is clamped.

        Raises:
            ValueError: for pixels of another shape.
        """
        pictures = []
        for one in pixels:
            if one.ndim != 3 or one.shape[0] != 3:
                raise ValueError(
                    f"Pixels of shape {tuple(one.shape)} were given, but a picture is (3, H, W); decode latents with "
                    "`model.decode_latents` first."
                )
            values = (one.float() / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).cpu().numpy()
            pictures.append(Image.fromarray((values * 255).round().astype(np.uint8)))
        return pictures
