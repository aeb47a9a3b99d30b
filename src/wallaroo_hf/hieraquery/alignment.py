"""Alignment of the diffusion transformer with what the frozen vision encoder sees in the clean picture."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

__all__ = ["HieraQueryAlignmentHead", "resize_features", "see"]


class HieraQueryAlignmentHead(nn.Sequential):
    """Three layers with SiLU between them (REPA's), from the diffusion transformer's width to that of vision features.

    Args:
        inner: width of states.
        hidden: of the layers between.
        outer: width of features.
    """

    def __init__(self, inner: int, hidden: int, outer: int) -> None:
        super().__init__(
            nn.Linear(inner, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, outer)
        )


def resize_features(features: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Features `(rows, cols, width)` as tokens `(rows' * cols', width)` of another grid, bilinear and antialiased."""
    channels = features.movedim(-1, 0)[None].float()
    resized = functional.interpolate(channels, grid, mode="bilinear", align_corners=False, antialias=True)
    return resized[0].flatten(1).T


@torch.no_grad()
def see(visual: Any, pixels: torch.Tensor) -> torch.Tensor:
    """What a Qwen2.5-VL vision encoder sees: `(rows, cols, width)`, a feature for each merged patch.

    Args:
        visual: the encoder.
        pixels: `(3, H, W)` in [-1, 1], or several `(B, 3, H, W)`, of which `(B, rows, cols, width)` is seen; resized to the
            nearest size that patches divide.
    """
    if pixels.dim() == 3:
        return see(visual, pixels[None])[0]
    patch, merge, frames = (
        visual.config.patch_size,
        visual.config.spatial_merge_size,
        visual.config.temporal_patch_size,
    )
    unit = patch * merge
    rows, cols = (max(1, round(edge / unit)) for edge in pixels.shape[-2:])
    size, count = (rows * unit, cols * unit), len(pixels)
    pictures = pixels.float()
    if tuple(pixels.shape[-2:]) != size:
        pictures = functional.interpolate(pictures, size, mode="bicubic", antialias=True).clamp(-1, 1)
    mean, std = torch.tensor([OPENAI_CLIP_MEAN, OPENAI_CLIP_STD], device=pixels.device).view(2, 1, 3, 1, 1)
    normal = ((pictures + 1) / 2 - mean) / std
    cells = normal.view(count, 3, rows, merge, patch, cols, merge, patch)
    cells = cells.permute(0, 2, 5, 3, 6, 1, 4, 7)[..., None, :, :].expand(*[-1] * 6, frames, -1, -1)
    flat = cells.reshape(count * rows * cols * merge**2, -1).to(visual.dtype)
    grid = torch.tensor([[1, rows * merge, cols * merge]] * count, device=pixels.device)
    features: torch.Tensor = visual(flat, grid_thw=grid).pooler_output
    return features.view(count, rows, cols, -1)
