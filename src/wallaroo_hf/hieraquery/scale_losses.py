"""What one scale of a batch costs: noisy latents through the diffusion transformer, those of one size together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from .alignment import resize_features
from .hiera_losses import alignment_loss, flow_loss, noised

__all__ = ["ScaleTargets", "scale_losses"]


@dataclass
class ScaleTargets:
    """What is learned at one scale, row by row; None for rows of which nothing is.

    Attributes:
        latents: clean, `(C, h, w)` float32.
        noise: `(draws, C, h, w)` of each row.
        sigmas: `(draws, B)`.
        keep: `(draws, B)`, whether the condition stays; None = always.
        features: of the vision encoder, `(rows, cols, width)`; None = no alignment.
        finest: `(h, w)` of each row's latents at the finest scale.
    """

    latents: Sequence[torch.Tensor | None]
    noise: Sequence[torch.Tensor | None]
    sigmas: torch.Tensor
    keep: torch.Tensor | None
    features: Sequence[torch.Tensor | None] | None
    finest: Sequence[tuple[int, int] | None]

    def groups(self) -> list[list[int]]:
        """Rows of which something is learned, those of one size together."""
        found: dict[Any, list[int]] = defaultdict(list)
        for row, latents in enumerate(self.latents):
            if latents is not None:
                found[tuple(latents.shape[-2:]), self.finest[row]].append(row)
        return list(found.values())


def scale_losses(model: Any, layer: int, condition: torch.Tensor, targets: ScaleTargets) -> dict[str, torch.Tensor]:
    """Means over rows and draws: `flow`, and `alignment` where there are features; nothing without rows.

    Args:
        model: a [`HieraQueryForConditionalGeneration`].
        layer: block of the diffusion transformer that is aligned.
        condition: `(B, N, condition_size)` of the scale.
        targets: of the scale.
    """
    sums: dict[str, torch.Tensor] = {}
    groups = targets.groups()
    count = sum(map(len, groups))
    for rows in groups:
        for name, loss in _group_losses(model, layer, condition, targets, rows).items():
            share = loss * (len(rows) / count)
            sums[name] = sums[name] + share if name in sums else share
    return sums


def _group_losses(
    model: Any, layer: int, condition: torch.Tensor, targets: ScaleTargets, rows: list[int]
) -> dict[str, torch.Tensor]:
    """The same of some rows of one size; draws of all rows stand one after the other."""
    draws, device = len(targets.sigmas), condition.device
    clean = torch.stack([_present(targets.latents[row]) for row in rows]).to(device).repeat(draws, 1, 1, 1)
    noise = torch.stack([_present(targets.noise[row]) for row in rows], dim=1).flatten(0, 1).to(clean)
    sigma = targets.sigmas[:, rows].flatten().to(clean)
    repeated = condition[rows].repeat(draws, 1, 1)
    if targets.keep is not None:
        repeated = repeated * targets.keep[:, rows].flatten().to(repeated)[:, None, None]
    finest = targets.finest[rows[0]]
    with model.dit_adapter.tap(model.dit, layer) as tap, _plain_attention(model.dit, device):
        velocity = model.dit_adapter.velocity(model.dit, noised(clean, noise, sigma), sigma, repeated, finest)
    losses = {"flow": flow_loss(velocity, clean, noise)}
    if targets.features is not None and tap.hidden_states is not None:
        patch = model.dit_adapter.patch_size
        grid = (clean.shape[-2] // patch, clean.shape[-1] // patch)
        seen = torch.stack([resize_features(_present(targets.features[row]).to(device), grid) for row in rows])
        losses["alignment"] = alignment_loss(model.alignment(tap.hidden_states), seen.repeat(draws, 1, 1))
    return losses


@contextmanager
def _plain_attention(dit: Any, device: torch.device) -> Iterator[None]:
    """Torch's fused attention on a CPU takes several times as long as plain products to go backward over few tokens.

    Activations that are computed a second time, going backward, are so outside of this: they have the fused one twice.
    """
    if device.type != "cpu" or dit.gradient_checkpointing:
        yield
        return
    with sdpa_kernel(SDPBackend.MATH):
        yield


def _present(tensor: torch.Tensor | None) -> torch.Tensor:
    assert tensor is not None
    return tensor
