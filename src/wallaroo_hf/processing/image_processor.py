"""Both image streams: NaViT patches to understand an image, and plain pixels for the image tokenizer (VQ)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..common.navit_images import NaViTImageProcessor
from ..pictures.fitting import check_fit, fit_back, resize_to_fit
from ..pictures.opening import flatten_images, open_image

__all__ = ["WallarooImageProcessor", "check_fit", "flatten_images", "open_image"]


class WallarooImageProcessor(NaViTImageProcessor):
    r"""Qwen2-VL's image processor (PIL), plus the pixels that the image tokenizer reads and writes.

    Calling it gives the NaViT stream (`pixel_values`, `image_grid_thw`) exactly as for Qwen2.5-VL. The image tokenizer's
    stream has no settings: RGB, resized with bicubic filtering until it covers the wanted size, centre-cropped, scaled
    to [-1, 1] (released data code; `reference/layouts/preprocess` pins it).
    """

    def to_vq_pixels(self, image: Image.Image, height: int, width: int, fit: str = "crop") -> np.ndarray:
        """Brings an image to `height` x `width` pixels for the image tokenizer.

        Args:
            fit: `"crop"` covers the size and cuts off what is over (the released data code); `"pad"` keeps all of the
                image and repeats its edges around it.

        Returns:
            Float32 array of shape `(3, height, width)` in [-1, 1].

        Raises:
            ValueError: for another `fit`.
        """
        image, (top, bottom, left, right) = resize_to_fit(image, height, width, fit)
        # transposed last: the arithmetic is the same, and the copy is made once
        pixels = (np.asarray(image, dtype=np.float32) / np.float32(255.0) - np.float32(0.5)) / np.float32(0.5)
        if fit == "pad":
            around = ((top, bottom), (left, right), (0, 0))
            pixels = np.pad(pixels, around, mode="edge")
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def black_vq_pixels(self, height: int, width: int) -> np.ndarray:
        """What [`~WallarooImageProcessor.to_vq_pixels`] gives for a black image of any size, with any `fit`."""
        return np.full((3, height, width), -1.0, dtype=np.float32)

    def fit_back(self, image: Image.Image, source: Image.Image, fit: str) -> Image.Image:
        """Undoes the change of size; see [`wallaroo_hf.pictures.fitting.fit_back`]."""
        return fit_back(image, source, fit)

    def from_vq_pixels(self, pixels: Any) -> list[Image.Image]:
        """Turns decoded pixels into images: `clamp(127.5 x + 128, 0, 255)`, truncated (released sampling scripts).

        Args:
            pixels: tensor `(B, 3, H, W)`, or a sequence of tensors `(3, H, W)` or `(1, 3, H, W)`; around [-1, 1],
                unclamped.
        """
        return [
            Image.fromarray((127.5 * item.float() + 128.0).clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy())
            for item in _unbatch(pixels)
        ]


def _unbatch(pixels: Any) -> list[Any]:
    if isinstance(pixels, Sequence):
        return [image for item in pixels for image in _unbatch(item)]
    if pixels.ndim == 3:
        return [pixels]
    if pixels.ndim != 4:
        raise ValueError(
            f"Pixels of shape {tuple(pixels.shape)} were given, but images are (B, 3, H, W); decode tokens with "
            "`model.decode_image_tokens` first."
        )
    return list(pixels)
