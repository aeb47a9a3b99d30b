"""Inpainting: where the mask is black, the codes of a picture are those of its source, and none is decided there."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch

from .branches import Branch

__all__ = ["given_codes"]


@torch.no_grad()
def given_codes(
    model: Any,
    conditional: Branch,
    masks: Sequence[torch.Tensor | None] | None,
    grids: Sequence[tuple[int, int]],
    copies: int,
) -> list[torch.Tensor | None] | None:
    """Ids `(rows, cols)` of each image's codes that are given, -1 where the mask says that one is decided.

    Args:
        model: its image tokenizer encodes the sources.
        conditional: the prompts with their sources.
        masks: the processor's `repaint_mask`, one per prompt: bool `(rows, cols)`, True where a code is decided; None for
            a prompt without. None = no prompt has one.
        grids: `(rows, cols)` of each prompt's image.
        copies: images per prompt.

    Returns:
        One per image, None for those without a mask; None if no prompt has one.

    Raises:
        ValueError: for masks that do not belong to these prompts.
    """
    if masks is None or all(mask is None for mask in masks):
        return None
    if len(masks) != len(grids):
        raise ValueError(
            f"`repaint_mask` has {len(masks)} entries, but there are {len(grids)} prompts; give one each."
        )
    counts = (conditional.input_ids == model.config.pixel_start_token_id).sum(dim=1).tolist()
    sources = iter(conditional.pictures.get("source_pixel_values", ()))
    given: list[torch.Tensor | None] = []
    for index, (mask, grid) in enumerate(zip(masks, grids, strict=True)):
        own = list(itertools.islice(sources, counts[index]))
        source = own[-1] if own else None  # of several the last one is changed
        ids = None if mask is None else _ids(model, source, mask, grid, index)
        given += [ids] * copies
    return given


def _ids(
    model: Any, source: torch.Tensor | None, mask: torch.Tensor, grid: tuple[int, int], index: int
) -> torch.Tensor:
    if source is None:
        raise ValueError(
            f"Prompt {index} has a `repaint_mask`, but no source; pass all tensors that the processor made."
        )
    vq_model = model.vq_model
    codes: torch.Tensor = vq_model.encode(source[None].to(vq_model.device)).image_tokens[0]
    if tuple(mask.shape) != grid or tuple(codes.shape) != grid:
        raise ValueError(
            f"Prompt {index} draws {grid[0]}x{grid[1]} codes (rows x columns), but its `repaint_mask` has the shape "
            f"{tuple(mask.shape)} and its source {codes.shape[0]}x{codes.shape[1]} codes; pass the processor's tensors "
            "unchanged."
        )
    return (codes + model.config.text_config.vocab_size).masked_fill(mask.to(codes.device), -1)
