"""The training loss: per task, mean cross-entropy over text labels plus mean cross-entropy over code labels."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

from .adapters import token_masks
from .configuration import WallarooConfig
from .parts import loss_names, task_names

TASKS = task_names()
LOSS_NAMES = loss_names()  # of the released tasks; a model's own are `loss_names(config.image_tasks)`


class LabelPositions(NamedTuple):
    """Where the labels of a batch are and whose task they belong to.

    Attributes:
        is_text, is_code: `(B, T - 1)` bool: whether position p + 1 has a label of that kind (p predicts it).
        text_tasks: `(N,)` int64, index into [`task_names`], of the text labels in order.
        image_tasks: `(M,)` int64, the same for codes.
    """

    is_text: torch.Tensor
    is_code: torch.Tensor
    text_tasks: torch.Tensor
    image_tasks: torch.Tensor


def find_labels(
    input_ids: torch.Tensor | None,
    labels: torch.Tensor,
    config: WallarooConfig,
    starts_of_rows: torch.Tensor | None = None,
    image_task: torch.Tensor | int | None = None,
) -> LabelPositions:
    """Sorts labels by kind and task.

    A code belongs to the task of its image span; a row's text belongs to the most that the row does: the last image task
    of the table that it has, else understanding.

    Args:
        input_ids, labels: `(B, T)`, labels unshifted, codes as `<|generate_image_pad|>` or `vocab_size + index`. Without
            ids (rows that were embedded ahead) codes have their index.
        starts_of_rows: `(B, T)` bool, where several rows stand one after the other (padding-free batches).
        image_task: without ids, which task the codes belong to: its index in `config.image_tasks`, `(B, T)` or one for all.

    Raises:
        ValueError: for codes that have no index or no task where there are no ids.
    """
    shifted = labels[:, 1:]
    is_code = (shifted >= config.text_config.vocab_size) | (shifted == config.generate_image_token_id)
    is_text = (shifted >= 0) & ~is_code
    if input_ids is None:
        does = _tasks_of_labels(labels, config, image_task)
    else:
        does = token_masks(input_ids, config, starts_of_rows).task + 1  # (B, T): what each token takes part in
    if starts_of_rows is None:
        row_task = does.amax(dim=1, keepdim=True).expand_as(does)
    else:
        rows = starts_of_rows.to(does.device).flatten().cumsum(dim=0)
        most = torch.zeros(int(rows[-1]) + 1, dtype=does.dtype, device=does.device)
        row_task = most.scatter_reduce(0, rows, does.flatten(), "amax")[rows].view_as(does)
    image_tasks = does[:, 1:][is_code].clamp(min=1)  # of the predicted token
    return LabelPositions(is_text, is_code, row_task[:, 1:][is_text], image_tasks)


def _tasks_of_labels(
    labels: torch.Tensor, config: WallarooConfig, image_task: torch.Tensor | int | None
) -> torch.Tensor:
    """What each label takes part in, `(B, T)`, index into [`task_names`], where the ids are not there to tell."""
    if bool((labels == config.generate_image_token_id).any()):
        raise ValueError(
            "`labels` hold <|generate_image_pad|> placeholders, whose codes only `input_ids` can tell; pass these too, or "
            "put codes in place (`vocab_size + index`)."
        )
    is_code = labels >= config.text_config.vocab_size
    if image_task is None:
        several = any(map(config.has_task, config.image_tasks[1:]))
        if several and bool(is_code.any()):
            raise ValueError(
                "`labels` hold image codes, and without `input_ids` it cannot be seen which task they belong to; pass "
                "`input_ids` or `image_task`."
            )
        image_task = 0
    tasks = torch.as_tensor(image_task, device=labels.device) + 1
    return torch.where(is_code, tasks, 0)


def count_labels(
    input_ids: torch.Tensor,
    labels: torch.Tensor,
    config: WallarooConfig,
    starts_of_rows: torch.Tensor | None = None,
) -> torch.Tensor:
    """How many labels each part of the loss has: int64 in the order of [`loss_names`]. See [`find_labels`].

    Args:
        input_ids: `(B, T)`.
        labels: `(B, T)`, -100 where nothing is learned.
        config: the model's; says which ids open an image.
        starts_of_rows: `(B, T)` bool, where several rows stand one after the other; None = one row each.
    """
    found = find_labels(input_ids, labels, config, starts_of_rows)
    tasks = len(config.image_tasks) + 1
    text, image = (of.bincount(minlength=tasks) for of in (found.text_tasks, found.image_tasks))
    return torch.cat([text[:1], torch.stack([text, image], dim=1)[1:].flatten()])  # understanding has no codes


def task_losses(
    text_logits: torch.Tensor,
    text_labels: torch.Tensor,
    text_tasks: torch.Tensor,
    image_logits: torch.Tensor,
    image_labels: torch.Tensor,
    image_tasks: torch.Tensor,
    tasks: Sequence[str] = TASKS,
) -> dict[str, torch.Tensor]:
    """Named means (paper section 4; released training scripts), in float32.

    Args:
        text_logits: `(N, vocab_size)`, aligned with `text_labels` (already shifted).
        text_labels: `(N,)` int64.
        text_tasks: `(N,)` int64, index into `tasks`.
        image_logits, image_labels, image_tasks: the same for codes, `(M, codebook_size)` and `(M,)`.
        tasks: names, see [`task_names`].

    Returns:
        Scalars under `understanding_text`, `generation_text`, `generation_image`, `editing_text`, `editing_image` and the
        like, those that have labels.
    """
    losses = {}
    for index, task in enumerate(tasks):
        for kind, logits, labels, belongs_to in (
            ("text", text_logits, text_labels, text_tasks),
            ("image", image_logits, image_labels, image_tasks),
        ):
            chosen = belongs_to == index
            if chosen.any():
                losses[f"{task}_{kind}"] = F.cross_entropy(logits[chosen].float(), labels[chosen])
    return losses


def total_loss(
    losses: Mapping[str, torch.Tensor], weights: Mapping[str, float] | None = None, tasks: Sequence[str] = TASKS
) -> torch.Tensor:
    """`Σ_task weight · (text mean + code mean)`; weights default to 1. `tasks` are those that may have one.

    Raises:
        ValueError: for a weight of an unknown task.
    """
    weights = weights or {}
    unknown = set(weights) - set(tasks)
    if unknown:
        raise ValueError(f"`loss_weights` names {sorted(unknown)}, but the tasks are {', '.join(tasks)}.")
    return sum((loss * weights.get(name.rpartition("_")[0], 1.0) for name, loss in losses.items()), torch.tensor(0.0))
