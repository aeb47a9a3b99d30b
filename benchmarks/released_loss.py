"""The baseline: how the released training scripts compute their losses, re-created on our modules from a description.

What it keeps of their structure:

- one forward per task, on batches that hold one task only;
- the text head at every position of every row, in float32, and once more as the contiguous copy that is shifted against
  the labels; the labels decide in the cross-entropy which positions count.

Where there was a choice we took the cheaper one: each task goes backward before the next one goes forward (one backward
of the sum would keep the logits of all three), and the image head runs only where a code is learned.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

IGNORED = -100


def released_losses(model: Any, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Text mean and code mean of a batch of one task.

    Args:
        model: a `WallarooForConditionalGeneration`.
        batch: `input_ids`, `attention_mask`, `labels` `(B, T)` with codes in place; for edits `source_latents`,
            `source_mask`.
    """
    config, labels = model.config, batch["labels"]
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    hidden_states = model.model(**inputs, use_cache=False).last_hidden_state
    is_code = labels >= config.text_config.vocab_size
    text_labels = labels.masked_fill(is_code, IGNORED)
    logits = model.lm_head(hidden_states).float()  # (B, T, vocab_size)
    shifted = logits[:, :-1].contiguous()
    losses = {
        "text": F.cross_entropy(
            shifted.view(-1, shifted.shape[-1]), text_labels[:, 1:].reshape(-1), ignore_index=IGNORED
        )
    }
    if bool(is_code.any()):
        head = model.edit_head if "source_latents" in batch else model.generation_head
        image_logits = head(hidden_states[:, :-1][is_code[:, 1:]]).float()
        losses["image"] = F.cross_entropy(image_logits, labels[is_code] - config.text_config.vocab_size)
    return losses


def released_step(model: Any, batches: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Forward and backward of each task in turn; the losses by the names that ours have."""
    values: dict[str, float] = {}
    for task, batch in batches.items():
        losses = released_losses(model, batch)
        torch.stack(list(losses.values())).sum().backward()
        values |= {f"{task}_{kind}": float(loss.detach()) for kind, loss in losses.items()}
    return values
