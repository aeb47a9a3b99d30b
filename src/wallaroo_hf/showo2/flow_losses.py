"""The training loss: cross-entropy of all text, and the squared error of velocities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch.nn import functional as F

__all__ = [
    *("FLOW_LOSS", "LOSS_NAMES", "SEMANTIC_LOSS", "TEXT_LOSSES"),
    *("flow_loss", "named_losses", "semantic_loss", "text_losses", "total_loss"),
]

TEXT_LOSSES = ("understanding_text", "generation_text")
FLOW_LOSS = "generation_image"
LOSS_NAMES = (*TEXT_LOSSES, FLOW_LOSS)
SEMANTIC_LOSS = "semantic"  # of pre-distillation, which has no other
_LEAST_COSINE = 0.05


def text_losses(
    logits: torch.Tensor, labels: torch.Tensor, generates: torch.Tensor
) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
    """Means over text labels, in float32.

    Args:
        logits: `(N, vocab_size)`, aligned with the labels.
        labels: `(N,)` int64.
        generates: `(N,)` bool: whether the label's row has an image to draw.

    Returns:
        The means of [`TEXT_LOSSES`] that have labels, for reports; and the mean over all, None without labels.
    """
    if not len(labels):
        return {}, None
    each = F.cross_entropy(logits.float(), labels, reduction="none")
    named = {}
    for name, chosen in zip(TEXT_LOSSES, (~generates, generates), strict=True):
        if chosen.any():
            named[name] = each[chosen].mean()
    return named, each.mean()


def flow_loss(
    velocities: Sequence[torch.Tensor | None], targets: Sequence[torch.Tensor | None]
) -> torch.Tensor | None:
    """Mean squared error over all numbers of the images that have a target, in float32; None where none has.

    Args:
        velocities: one per image, in the layout of latents; None where there is none (reduced video).
        targets: the same; None = this image is not learned.

    Raises:
        ValueError: for a target of another size.
    """
    total, count = None, 0
    for number, (velocity, target) in enumerate(zip(velocities, targets, strict=True)):
        if target is None:
            continue
        if velocity is None or velocity.shape != target.shape:
            has = "no velocity, as a reduced video" if velocity is None else f"a velocity of {tuple(velocity.shape)}"
            raise ValueError(f"Image {number} has {has}, but its target is of size {tuple(target.shape)}.")
        error = (velocity.float() - target.to(velocity.device).float()).square().sum()
        total = error if total is None else total + error
        count += target.numel()
    return None if total is None else total / count


def total_loss(
    text: torch.Tensor | None, flow: torch.Tensor | None, text_weight: float, like: torch.Tensor
) -> torch.Tensor:
    """`text_weight · text + flow`, of those that are there (released code; no image, no NaN).

    Args:
        text, flow: means.
        text_weight: 0.2 in stage 1, else 1.
        like: hidden states, which a loss of nothing is 0 times, so that it can be learned from as any other.
    """
    if text is None and flow is None:
        return 0.0 * like.float().sum()
    loss = like.new_zeros((), dtype=torch.float32)
    for part, weight in ((text, text_weight), (flow, 1.0)):
        if part is not None:
            loss = loss + weight * part
    return loss


def named_losses(text: Mapping[str, torch.Tensor], flow: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """The parts that are there, by name, in the order of [`LOSS_NAMES`]."""
    return {**text, **({} if flow is None else {FLOW_LOSS: flow})}


def semantic_loss(features: Sequence[torch.Tensor], targets: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """`-log cos` between features and those of a teacher, the mean over all tokens of images that have any, in float32.

    Below a cosine of 0.05 the logarithm goes on as its tangent, so that features that point elsewhere learn too.

    Args:
        features, targets: `(N, width)` of each image; None = this image is not learned.

    Raises:
        ValueError: for targets of another number or size.
    """
    if len(features) != len(targets):
        raise ValueError(
            f"There are {len(features)} images, but {len(targets)} `semantic_targets`; give one per image."
        )
    found = []
    for number, (own, target) in enumerate(zip(features, targets, strict=True)):
        if target is None:
            continue
        if own.shape != target.shape:
            raise ValueError(
                f"Image {number} has features of {tuple(own.shape)}, but those of the teacher are {tuple(target.shape)}."
            )
        found.append(F.cosine_similarity(own.float(), target.to(own.device).float(), dim=-1))
    if not found:
        return sum((own.float().sum() for own in features), torch.tensor(0.0)) * 0.0
    cosine = torch.cat(found)
    tangent = (_LEAST_COSINE - cosine) / _LEAST_COSINE - math.log(_LEAST_COSINE)
    return torch.where(cosine > _LEAST_COSINE, -cosine.clamp(min=_LEAST_COSINE).log(), tangent).mean()
