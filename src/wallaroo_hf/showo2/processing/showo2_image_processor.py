"""`ShowO2ImageProcessor`: pictures to the pixels that the image codec takes, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.processing_utils import ImagesKwargs

from ...families.sizes import nearest_bucket
from ...files.whole_text import printable
from ...pictures.fitting import check_fit, resize_to_fit
from ...pictures.opening import flatten_images
from .showo2_batch import ShowO2BatchFeature

__all__ = ["ShowO2ImageProcessor"]


class ShowO2ImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    """What a call may say beside transformers' own.

    Attributes:
        sizes: `(height, width)` in pixels that pictures are brought to.
        fit: "crop" or "pad".
    """

    sizes: list[Any] | tuple[Any, ...]
    fit: str


class ShowO2ImageProcessor(PilBackend):
    r"""Brings pictures to a size, RGB, scaled to [-1, 1].

    `fit="crop"` resizes with bicubic filtering until the picture covers the size and cuts off what is over, as in training
    for text-to-image; `fit="pad"` keeps all of it and puts black around it, as in training for questions.

    Args:
        sizes (`list[tuple[int, int]]`, *optional*, defaults to `[(432, 432)]`): `(height, width)` in pixels; each picture
            is brought to the one whose shape is nearest to its own.
        fit (`str`, *optional*, defaults to `"pad"`): how that is done.

    Raises:
        ValueError: for another `fit`, or sizes that are none.
    """

    valid_kwargs = ShowO2ImageProcessorKwargs
    model_input_names = ["pixel_values"]

    sizes: Any = ((432, 432),)
    fit = "pad"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sizes = _checked_sizes(self.sizes)
        check_fit(self.fit)

    def preprocess(self, images: Any, **kwargs: Any) -> ShowO2BatchFeature:
        """Prepares pictures to be seen.

        Args:
            images: one picture or (nested) lists of them, in any form that
                [`wallaroo_hf.pictures.opening.open_image`] takes.
            kwargs: `sizes`, `fit` and `return_tensors`.

        Returns:
            `pixel_values`: a list with `(3, height, width)` float32 in [-1, 1] for each picture.

        Raises:
            ValueError: for settings that would change nothing here, or that cannot be.
        """
        sizes, fit = self.read_settings(kwargs)
        pixels = [self.to_pixels(image, *self.pick_size(image, sizes), fit) for image in flatten_images(images)]
        return ShowO2BatchFeature.of_arrays({"pixel_values": pixels}, kwargs.get("return_tensors"))

    def read_settings(self, given: Mapping[str, Any]) -> tuple[list[tuple[int, int]], str]:
        """The `sizes` and the `fit` of a call; see [`~ShowO2ImageProcessor.preprocess`].

        Args:
            given: by name; None = its own.

        Raises:
            ValueError: for settings that would change nothing here, or that cannot be.
        """
        own = {"sizes", "fit", "return_tensors"}
        unused = sorted(key for key, value in given.items() if key not in own and value != getattr(self, key, None))
        if unused:
            raise ValueError(
                f"`{unused[0]}` changes nothing for a ShowO2ImageProcessor; it takes `sizes`, `fit` and `return_tensors`."
            )
        fit = self.fit if given.get("fit") is None else given["fit"]
        check_fit(fit)
        return _checked_sizes(self.sizes if given.get("sizes") is None else given["sizes"]), fit

    def pick_size(self, image: Image.Image, sizes: Sequence[tuple[int, int]] | None = None) -> tuple[int, int]:
        """The `(height, width)` that a picture is brought to; `sizes` are other ones than its own."""
        return nearest_bucket(image.height, image.width, self.sizes if sizes is None else sizes)

    def to_pixels(self, image: Image.Image, height: int, width: int, fit: str = "crop") -> np.ndarray:
        """Brings a picture to `height` x `width` pixels.

        Args:
            image: RGB.
            height, width: in pixels.
            fit: "crop" or "pad".

        Returns:
            Float32 array of shape `(3, height, width)` in [-1, 1].
        """
        image, (top, bottom, left, right) = resize_to_fit(image, height, width, fit)
        values = np.pad(np.asarray(image), ((top, bottom), (left, right), (0, 0)))  # black
        pixels = (values.astype(np.float32) / np.float32(255.0) - np.float32(0.5)) / np.float32(0.5)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def to_pictures(self, pixels: Any) -> list[Image.Image]:
        """Pixels in [-1, 1] as pictures: `(x + 1) / 2 * 255`, truncated (released sampling scripts).

        Args:
            pixels: tensor `(B, 3, H, W)`, or a sequence of tensors `(3, H, W)`; what is beyond [-1, 1] is clamped.

        Raises:
            ValueError: for pixels of another shape.
        """
        rows = list(pixels)
        for one in rows:
            if one.ndim != 3 or one.shape[0] != 3:
                raise ValueError(
                    f"Pixels of shape {tuple(one.shape)} were given, but a picture is (3, H, W); decode latents with the "
                    "model's image codec first."
                )
        return [Image.fromarray(_eight_bits(one)) for one in rows]


def _eight_bits(pixels: torch.Tensor) -> np.ndarray:
    scaled = ((pixels.float() + 1) / 2).clamp(0, 1) * 255
    return scaled.byte().permute(1, 2, 0).cpu().numpy()


def _checked_sizes(sizes: Any) -> list[tuple[int, int]]:
    is_listed = isinstance(sizes, (list, tuple)) and sizes
    pairs = [tuple(size) for size in sizes if isinstance(size, (list, tuple))] if is_listed else []
    whole = [pair for pair in pairs if len(pair) == 2 and all(isinstance(edge, int) and edge > 0 for edge in pair)]
    if not whole or len(whole) != len(sizes):
        raise ValueError(f"`sizes` is {printable(repr(sizes), 60)}, but must be a list of (height, width) in pixels.")
    return [(height, width) for height, width in whole]
