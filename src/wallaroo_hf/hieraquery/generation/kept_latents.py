"""Inpainting: what of a picture stays is put back behind every step, as noisy as the step ends: [`KeptLatents`]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from ..scale_sizes import at_size

__all__ = ["KeptLatents", "KeptRow", "kept_rows"]


@dataclass(frozen=True)
class KeptLatents:
    """What stays of images of one size and scale.

    Attributes:
        latents: `(K, C, h, w)` float32, of their sources.
        repainted: bool `(K, 1, h, w)`, True where they are painted; all of it for images without a mask.
        noise: `(K, C, h, w)` float32, what they begin with.
    """

    latents: torch.Tensor
    repainted: torch.Tensor
    noise: torch.Tensor

    def put_back(self, drawn: torch.Tensor, sigma: torch.Tensor | float) -> torch.Tensor:
        """Latents `(K, C, h, w)` with the source's where it stays, at a noise from 1 to 0 (clean: its own, exactly)."""
        return torch.where(self.repainted, drawn, (1 - sigma) * self.latents + sigma * self.noise)


@dataclass(frozen=True)
class KeptRow:
    """What stays of the images of one row.

    Attributes:
        pixels: the source, `(3, H, W)` float32 in [-1, 1], at the size of the image.
        repainted: bool, by cells: `(rows, cols)`.
    """

    pixels: torch.Tensor
    repainted: torch.Tensor

    @torch.no_grad()
    def at_scale(self, codec: Any, size: tuple[int, int], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents `(C, h, w)` and where they are painted, `(1, h, w)`: a latent that holds any of a cell is.

        Args:
            codec: the model's.
            size: of the image at this scale, in pixels.
            device: to compute on.
        """
        latents = codec.encode_images(at_size(self.pixels[None].to(device), size)).mean[0].float()
        cells = self.repainted[None].to(device, torch.float32)
        return latents, functional.adaptive_max_pool2d(cells, latents.shape[-2:]) > 0


def kept_rows(
    batch: Mapping[str, Any], sizes: Sequence[tuple[int, int]], multiple: int
) -> list[KeptRow | None] | None:
    """What stays of each row, None for rows without a mask; None if no row has one.

    Args:
        batch: the processor's tensors; `repaint_mask` and `source_pixel_values` are lists with an entry for each row.
        sizes: of the rows' images, in pixels.
        multiple: edge of a cell in pixels.

    Raises:
        ValueError: for masks that do not belong to these rows.
    """
    masks, sources = batch.get("repaint_mask"), batch.get("source_pixel_values")
    if masks is None or all(mask is None for mask in masks):
        return None
    if sources is None or not len(masks) == len(sources) == len(sizes):
        counts = f"{len(masks)} and {0 if sources is None else len(sources)} entries"
        raise ValueError(
            f"`repaint_mask` and `source_pixel_values` have {counts}, but there are {len(sizes)} prompts; give one each."
        )
    rows: list[KeptRow | None] = []
    for index, (mask, source, (height, width)) in enumerate(zip(masks, sources, sizes, strict=True)):
        if mask is None:
            rows.append(None)
            continue
        cells = (height // multiple, width // multiple)
        if source is None or tuple(source.shape) != (3, height, width) or tuple(mask.shape) != cells:
            shape = "missing" if source is None else f"of shape {tuple(source.shape)}"
            raise ValueError(
                f"Prompt {index} draws {height}x{width} pixels (height x width), but its `repaint_mask` has the shape "
                f"{tuple(mask.shape)} and its source is {shape}; pass the processor's tensors unchanged."
            )
        rows.append(KeptRow(source.float(), mask.bool()))
    return rows
