"""What only an ablation needs of a model: one head for both tasks, and a source block with two-dimensional positions."""

from __future__ import annotations

import math
from typing import Any

import torch

from ...modeling.backbone import WallarooModel
from ...modeling.configuration import WallarooConfig
from ...modeling.model import WallarooForConditionalGeneration

__all__ = ["GridSourceModel", "SharedHeadModel"]


class SharedHeadModel(WallarooForConditionalGeneration):
    """Edits are drawn with the generation head: there are no weights of an edit head, in memory or on disk."""

    _keys_to_ignore_on_load_unexpected = [r"^edit_head\."]  # of the base, which may edit

    @property
    def edit_head(self) -> Any:
        """The generation head."""
        return self.generation_head

    def __setattr__(self, name: str, value: Any) -> None:
        """Whoever gives the model an edit head of its own (the constructor, [`add_editing_parts`]) gives it none."""
        if name != "edit_head":
            super().__setattr__(name, value)


class _GridSourceBody(WallarooModel):
    """[`WallarooModel`] whose source blocks have positions like an image that is understood."""

    def get_rope_index(
        self,
        input_ids: torch.Tensor,
        mm_token_type_ids: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        video_grid_thw: torch.Tensor | None = None,
        second_per_grid_ts: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions `(3, B, T)` and offsets `(B, 1)` as in [`WallarooModel`], but for source blocks and what follows them.

        A code in row r and column c of a block stands at (p, p + r, p + c), where p follows `<|pixel_start|>`; a line break
        is one more column. What comes after the block goes on behind its longer side, as after a NaViT block.
        """
        positions, deltas = super().get_rope_index(
            input_ids, mm_token_type_ids, image_grid_thw, video_grid_thw, second_per_grid_ts, attention_mask, **kwargs
        )
        positions, deltas = positions.clone(), deltas.clone()
        for row, ids in enumerate(input_ids):
            starts, ends = (
                (ids == token).nonzero().flatten().tolist()
                for token in (self.config.pixel_start_token_id, self.config.pixel_end_token_id)
            )
            for start, end in zip(starts, ends, strict=True):
                grid = _grid_places(ids[start + 1 : end] == self.config.end_of_line_token_id)  # (2, n)
                extent = int(grid.max()) + 1
                first = positions[:, row, start] + 1  # (3,)
                positions[0, row, start + 1 : end] = first[0]
                positions[1:, row, start + 1 : end] = first[1:, None] + grid.to(positions)
                saved = end - start - 1 - extent
                positions[:, row, end:] -= saved
                deltas[row] -= saved
        if attention_mask is not None:
            positions = positions.masked_fill(attention_mask.to(positions.device) == 0, 1)
        return positions, deltas


class GridSourceModel(WallarooForConditionalGeneration):
    """The source block has two-dimensional positions (M-RoPE), as NaViT's has; released: one-dimensional ones."""

    def __init__(self, config: WallarooConfig) -> None:
        super().__init__(config)
        self.model = _GridSourceBody(config)
        self.post_init()


def _grid_places(is_break: torch.Tensor) -> torch.Tensor:
    """Row and column `(2, n)` of each token of a source block, from where its line breaks are `(n,)`."""
    count = len(is_break)
    if not bool(is_break.any()):  # the plain grid is square
        side = math.isqrt(count)
        if side * side != count:
            raise ValueError(
                f"A source block has {count} codes and no line breaks, so its rows cannot be told; only square sources "
                "have two-dimensional positions then."
            )
        positions = torch.arange(count, device=is_break.device)
        return torch.stack([positions // side, positions % side])
    cols = int(is_break.nonzero()[0])
    positions = torch.arange(count, device=is_break.device)
    return torch.stack([positions // (cols + 1), positions % (cols + 1)])
