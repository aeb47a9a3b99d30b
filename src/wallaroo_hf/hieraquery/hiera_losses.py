"""Losses of HieraQuery, scale by scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.nn import functional

__all__ = ["alignment_loss", "flow_loss", "loss_names", "noised", "total_loss"]


def noised(latents: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """`(1 - sigma) * latents + sigma * noise`; all float32, `sigma` `(B,)`."""
    share = sigma.view(-1, 1, 1, 1)
    return (1 - share) * latents + share * noise


def flow_loss(velocity: torch.Tensor, latents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Mean squared error of a velocity, whose target is `noise - latents`; each `(B, C, h, w)`, computed in float32."""
    return functional.mse_loss(velocity.float(), noise.float() - latents.float())


def alignment_loss(projected: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Mean negative cosine, from -1 to 1, of states and features; each `(B, N, width)`, computed in float32."""
    return -functional.cosine_similarity(projected.float(), features.float(), dim=-1).mean()


def loss_names(num_scales: int, aligned: bool) -> tuple[str, ...]:
    """The names of all losses there are."""
    kinds = ("flow", "alignment") if aligned else ("flow",)
    return tuple(f"{kind}_{scale}" for kind in kinds for scale in range(num_scales))


def total_loss(losses: Mapping[str, torch.Tensor], weights: Sequence[float], alignment_weight: float) -> torch.Tensor:
    """The mean over scales of flow loss + alignment loss.

    Args:
        losses: by name.
        weights: of each scale; those of 0 have no losses.
        alignment_weight: of the alignment.
    """
    total = sum(
        weights[int(name.rpartition("_")[2])] * (alignment_weight if name.startswith("alignment") else 1.0) * loss
        for name, loss in losses.items()
    )
    assert isinstance(total, torch.Tensor)
    return total / sum(weight > 0 for weight in weights)
