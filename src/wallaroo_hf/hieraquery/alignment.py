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
        pixels: `(3, H, W)` in [-1, 1]; resized to the nearest size that patches divide.
    """
    patch, merge, frames = (
        visual.config.patch_size,
        visual.config.spatial_merge_size,
        visual.config.temporal_patch_size,
    )
    unit = patch * merge
    rows, cols = (max(1, round(edge / unit)) for edge in pixels.shape[-2:])
    size = (rows * unit, cols * unit)
    picture = pixels.float()[None]
    if tuple(pixels.shape[-2:]) != size:
        picture = functional.interpolate(picture, size, mode="bicubic", antialias=True).clamp(-1, 1)
    mean, std = torch.tensor([OPENAI_CLIP_MEAN, OPENAI_CLIP_STD], device=pixels.device).view(2, 1, 3, 1, 1)
    normal = ((picture + 1) / 2 - mean) / std
    cells = normal[0].view(3, rows, merge, patch, cols, merge, patch)
    cells = cells.permute(1, 4, 2, 5, 0, 3, 6)[..., None, :, :].expand(*[-1] * 5, frames, -1, -1)
    flat = cells.reshape(rows * cols * merge**2, -1).to(visual.dtype)
    grid = torch.tensor([[1, rows * merge, cols * merge]], device=pixels.device)
    features: torch.Tensor = visual(flat, grid_thw=grid).pooler_output
    return features.view(rows, cols, -1)
