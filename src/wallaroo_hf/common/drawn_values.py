"""What drawings of every family with noise begin with: numbers, sizes and noise; each fault is one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..files.whole_text import printable

__all__ = ["check_edges", "draw_noise", "read_count", "read_number", "read_sizes"]


def read_number(name: str, value: Any) -> float:
    """A setting that is a number.

    Args:
        name: of the setting.
        value: as given.

    Raises:
        ValueError: for anything else, text and truth values among them.
    """
    try:
        if isinstance(value, (str, bytes, bool)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"`{name}` is {printable(repr(value), 60)}, but must be a number.") from error


def read_count(name: str, value: Any) -> int:
    """A setting that is a whole number from 1 on.

    Args:
        name: of the setting.
        value: as given.

    Raises:
        ValueError: for anything else.
    """
    number = read_number(name, value)
    if not 1 <= number < float("inf") or number != int(number):
        raise ValueError(f"`{name}` is {number:g}, but must be a whole number from 1 on.")
    return int(number)


def read_sizes(image_size: Any, rows: int, multiple: int) -> list[tuple[int, int]]:
    """Heights and widths in pixels of the images of rows.

    Args:
        image_size: `(rows, 2)`, whole numbers.
        rows: how many.
        multiple: edge of a token in pixels.

    Raises:
        ValueError: for another shape, and for sizes that are not of whole tokens.
    """
    try:
        sizes = torch.as_tensor(image_size)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"`image_size` is no table of numbers ({error}); give height and width of each row."
        ) from error
    if tuple(sizes.shape) != (rows, 2) or sizes.is_floating_point():
        raise ValueError(
            f"`image_size` has the type {sizes.dtype} and the shape {tuple(sizes.shape)}, but must be whole numbers of "
            f"shape ({rows}, 2): height and width of each row in pixels."
        )
    found = [(int(height), int(width)) for height, width in sizes.tolist()]
    for size in found:
        check_edges(size, multiple)
    return found


def check_edges(size: Sequence[int], multiple: int) -> None:
    """Refuses a size in pixels that is not one of whole tokens.

    Args:
        size: height and width.
        multiple: edge of a token in pixels.

    Raises:
        ValueError: for such a size.
    """
    if any(edge < multiple or edge % multiple for edge in size):
        raise ValueError(
            f"An image of {size[0]}x{size[1]} was asked for, but edges must be multiples of {multiple} pixels."
        )


def draw_noise(
    shapes: Sequence[tuple[int, ...]], generators: Sequence[torch.Generator] | torch.Generator | None
) -> list[torch.Tensor]:
    """Noise of images, float32, on the CPU, drawn in their order.

    Args:
        shapes: of each image's latents.
        generators: one for all, or one per image; None = torch's own.

    Raises:
        ValueError: for another number of generators, or something else than generators.
    """
    is_listed = isinstance(generators, Sequence)
    own: list[Any] = list(generators) if is_listed else [generators] * len(shapes)  # type: ignore[arg-type]
    if len(own) != len(shapes):
        raise ValueError(f"There are {len(shapes)} images, but {len(own)} generators; give one, or one each.")
    noise = []
    for shape, one in zip(shapes, own, strict=True):
        if not isinstance(one, (torch.Generator, type(None))):
            raise ValueError(
                f"A generator is a {type(one).__name__}, but must be a `torch.Generator`; make it by "
                "`torch.Generator().manual_seed(seed)`."
            )
        device = "cpu" if one is None else one.device
        noise.append(torch.randn(shape, generator=one, device=device).cpu())
    return noise
