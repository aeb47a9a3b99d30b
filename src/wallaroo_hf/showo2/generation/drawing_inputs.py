"""What drawings begin with, looked at before anything is computed: prompts, sizes and noise; each fault is one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...common import drawn_values
from ...common.drawn_values import read_count, read_number, read_sizes
from ..checked_inputs import check_latents

__all__ = ["check_prompts", "draw_noise", "read_count", "read_noise", "read_number", "read_sizes"]

PREPARE = 'prepare them with `processor(..., generation_mode="image")`'


def check_prompts(batch: Mapping[str, Any], start: int, may_answer: bool = False) -> None:
    """Makes sure that rows, and null rows where given, end where an image begins, and that masks fit them.

    Args:
        batch: see [`FlowGroup`].
        start: the id that opens an image.
        may_answer: rows may go on with text, and so end as they like; null rows may not.

    Raises:
        ValueError: if not.
    """
    rows = len(batch["input_ids"])
    for prefix in ("", "negative_"):
        ids, mask = batch.get(f"{prefix}input_ids"), batch.get(f"{prefix}attention_mask")
        if ids is None:
            if mask is not None:
                raise ValueError(f"There is a `{prefix}attention_mask` without `{prefix}input_ids`; give both.")
            continue
        if ids.dim() != 2 or len(ids) != rows:
            raise ValueError(
                f"`{prefix}input_ids` are of shape {tuple(ids.shape)}, but must be ({rows if prefix else 'B'}, T), one row "
                f"per prompt; {PREPARE}."
            )
        if mask is not None and mask.shape != ids.shape:
            raise ValueError(
                f"`{prefix}attention_mask` is of shape {tuple(mask.shape)}, but `{prefix}input_ids` are of "
                f"{tuple(ids.shape)}; {PREPARE}."
            )
        if may_answer and not prefix:
            continue
        if not ids.shape[1] or not bool((ids[:, -1] == start).all()):
            raise ValueError(
                f"Rows of `{prefix}input_ids` must be left-padded and end with the token that opens an image (id {start}); "
                f"{PREPARE}."
            )


def read_noise(noise: Any, count: int, config: Any) -> list[torch.Tensor]:
    """Noise that was given, float32.

    Args:
        noise: one `(C, h, w)` per image, or all of them as one tensor.
        count: of images.
        config: the model's.

    Raises:
        ValueError: for anything else.
    """
    if not isinstance(noise, (Sequence, torch.Tensor)) or len(noise) != count:
        had = f"{len(noise)} tensors" if isinstance(noise, (Sequence, torch.Tensor)) else f"a {type(noise).__name__}"
        raise ValueError(f"There are {count} images, but {had} in `noise`; give one latent (C, h, w) per image.")
    for one in noise:
        check_latents(one, config)
        if one.dim() != 3:
            raise ValueError(
                f"`noise` holds a tensor of size {tuple(one.shape)}, but an image's is ({config.latent_channels}, h, w)."
            )
        if not bool(one.isfinite().all()):
            raise ValueError("`noise` holds numbers that are not finite; draw it anew, such as by `torch.randn`.")
    return [one.float() for one in noise]


def draw_noise(
    sizes: Sequence[tuple[int, int]], generators: Sequence[torch.Generator] | torch.Generator | None, model: Any
) -> list[torch.Tensor]:
    """Noise `(C, h, w)` of images, see [`wallaroo_hf.common.drawn_values.draw_noise`].

    Args:
        sizes: of the images, in pixels.
        generators: one for all, or one per image; None = torch's own.
        model: whose latents they are.
    """
    edge, channels = model.vae.spatial_factor, model.config.latent_channels
    return drawn_values.draw_noise([(channels, height // edge, width // edge) for height, width in sizes], generators)
