"""Pictures at a scale: how large they are there, and how they become so."""

import math

import torch
from torch.nn import functional

from .hieraquery_configuration import HieraQueryConfig

__all__ = ["at_size", "size_at_scale"]


def size_at_scale(config: HieraQueryConfig, multiple: int, height: int, width: int, scale: int) -> tuple[int, int]:
    """Height and width of a scale's picture.

    Args:
        config: the model's.
        multiple: what its edges must be multiples of, in pixels.
        height, width: of the picture at the finest scale.
        scale: its number.

    Raises:
        ValueError: if the codec's and the transformer's cells do not divide it.
    """
    factor = config.scales[scale]["factor"]
    if config.coarse_sizes == "nearest" and not (height % multiple or width % multiple):
        parts = math.gcd(height // multiple, width // multiple)  # the picture is so many times its smallest like
        times = min(range(1, parts + 1), key=lambda times: abs(times / parts - factor))
        return height // parts * times, width // parts * times
    edges = [edge * factor for edge in (height, width)]
    if any(edge != round(edge) or round(edge) % multiple or not edge for edge in edges):
        raise ValueError(
            f"A picture of {height}x{width} (height x width) does not fit scale {scale}, whose factor is {factor:g}: "
            f"its edges must be multiples of {multiple} pixels there too; choose another size."
        )
    return round(edges[0]), round(edges[1])


def at_size(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Pictures `(B, 3, H, W)` brought to a smaller size by averaging."""
    return functional.interpolate(pixels, size, mode="area") if tuple(pixels.shape[-2:]) != size else pixels
