"""Pictures as Qwen2.5-VL's vision encoder sees them: NaViT patches, made with Pillow alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from ..pictures.opening import open_image
from ..pictures.pixels import is_array

__all__ = ["NaViTImageProcessor", "black_patches", "count_vision_tokens", "navit_patches"]


class NaViTImageProcessor(Qwen2VLImageProcessorPil):
    """Qwen2-VL's image processor (PIL), which opens pictures as the rest of this package does."""

    def fetch_images(self, image_url_or_urls: Any) -> Any:
        """Pictures as every other picture is opened, see [`wallaroo_hf.pictures.opening.open_image`]; arrays stay as they
        are, whose scale and order of channels the caller may say (`do_rescale`, `input_data_format`).
        """
        if isinstance(image_url_or_urls, (list, tuple)):
            return [self.fetch_images(item) for item in image_url_or_urls]
        return image_url_or_urls if is_array(image_url_or_urls) else open_image(image_url_or_urls)


def navit_patches(
    image_processor: Any, images: Sequence[Image.Image], options: Mapping[str, Any]
) -> tuple[dict[str, Any], list[int]]:
    """Patches of pictures, and the number of tokens that each becomes; nothing for no pictures.

    Args:
        image_processor: Qwen2-VL's.
        images: in order.
        options: of the image processor.

    Returns:
        `pixel_values` `(patches, C)` float32 and `image_grid_thw` `(images, 3)` int64; the numbers.
    """
    if not images:
        return {}, []
    chosen = {name: value for name, value in options.items() if name != "return_tensors"}
    vision = image_processor(list(images), return_tensors="np", **chosen)
    grids = vision["image_grid_thw"]
    lengths = (grids.prod(axis=-1) // image_processor.merge_size**2).tolist()
    return {"pixel_values": vision["pixel_values"], "image_grid_thw": grids}, lengths


def black_patches(
    image_processor: Any, grids: np.ndarray, options: Mapping[str, Any]
) -> tuple[dict[str, Any], list[int]]:
    """What [`navit_patches`] gives for black pictures, without opening or resizing any: all of their patches are one.

    Args:
        image_processor: Qwen2-VL's.
        grids: `(images, 3)`, those of other pictures of their sizes, prepared with the same options.
        options: of the image processor.
    """
    edge = image_processor.patch_size * image_processor.merge_size
    block, _ = navit_patches(image_processor, [Image.new("RGB", (edge, edge))], {**options, "do_resize": False})
    counts = grids.prod(axis=-1)
    pixels = np.repeat(block["pixel_values"][:1], int(counts.sum()), axis=0)
    lengths = (counts // image_processor.merge_size**2).tolist()
    return {"pixel_values": pixels, "image_grid_thw": grids}, lengths


def count_vision_tokens(image_processor: Any, height: int, width: int, limits: Mapping[str, int]) -> int:
    """How many tokens a picture of a size becomes, told from that alone.

    Args:
        image_processor: Qwen2-VL's.
        height, width: of the picture, in pixels.
        limits: `min_pixels` and `max_pixels`, where they are not the processor's own.
    """
    patches = image_processor.get_number_of_image_patches(height, width, dict(limits))
    return int(patches) // image_processor.merge_size**2
