"""The training loss: per task, mean cross-entropy over text labels plus mean cross-entropy over code labels."""

from collections.abc import Mapping

import torch
from torch.nn import functional as F

TASKS = ("understanding", "generation", "editing")


def task_losses(
    text_logits: torch.Tensor,
    text_labels: torch.Tensor,
    text_tasks: torch.Tensor,
    image_logits: torch.Tensor,
    image_labels: torch.Tensor,
    image_tasks: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """Named means (paper section 4; released training scripts), in float32.

    Args:
        text_logits: `(N, vocab_size)`, aligned with `text_labels` (already shifted).
        text_labels: `(N,)` int64.
        text_tasks: `(N,)` int64, index into `TASKS`.
        image_logits, image_labels, image_tasks: the same for codes, `(M, codebook_size)` and `(M,)`.

    Returns:
        Scalars under `understanding_text`, `generation_text`, `generation_image`, `editing_text`, `editing_image`, those
        that have labels.
    """
    losses = {}
    for index, task in enumerate(TASKS):
        for kind, logits, labels, tasks in (
            ("text", text_logits, text_labels, text_tasks),
            ("image", image_logits, image_labels, image_tasks),
        ):
            chosen = tasks == index
            if chosen.any():
                losses[f"{task}_{kind}"] = F.cross_entropy(logits[chosen].float(), labels[chosen])
    return losses


def total_loss(losses: Mapping[str, torch.Tensor], weights: Mapping[str, float] | None = None) -> torch.Tensor:
    """`Σ_task weight · (text mean + code mean)`; weights default to 1.

    Raises:
        ValueError: for a weight of an unknown task.
    """
    weights = weights or {}
    unknown = set(weights) - set(TASKS)
    if unknown:
        raise ValueError(f"`loss_weights` names {sorted(unknown)}, but the tasks are {', '.join(TASKS)}.")
    return sum((loss * weights.get(name.rpartition("_")[0], 1.0) for name, loss in losses.items()), torch.tensor(0.0))
