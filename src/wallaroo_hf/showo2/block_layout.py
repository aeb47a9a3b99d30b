"""Where the images of a batch are: runs of the image token, the time first."""

from __future__ import annotations

from typing import NamedTuple

import torch

__all__ = ["BlockLayout", "find_blocks"]


class BlockLayout(NamedTuple):
    """The image blocks of a batch, in order, row by row.

    Attributes:
        numbers: `(B, T)` int64: which block a position belongs to, counted through the batch; -1 = text. As
            `block_sequence_ids` of transformers' masks they are the omni-attention: causal, and everything within a block.
        rows: the row of each block.
        lengths: positions of each block, that of its time included.
    """

    numbers: torch.Tensor
    rows: list[int]
    lengths: list[int]

    @classmethod
    def empty(cls, rows: int, length: int, device: torch.device) -> BlockLayout:
        """That of text only, told without a look at it, which would wait for the device."""
        return cls(torch.full((rows, length), -1, device=device), [], [])

    @property
    def is_image(self) -> torch.Tensor:
        """`(B, T)` bool: positions of blocks."""
        return self.numbers >= 0


def find_blocks(is_image: torch.Tensor, starts_of_rows: torch.Tensor | None = None) -> BlockLayout:
    """The runs of image positions.

    Args:
        is_image: `(B, T)` bool.
        starts_of_rows: `(B, T)` bool, where several rows stand one after the other: a run ends before such a position.
    """
    begins = is_image.clone()
    begins[:, 1:] &= ~is_image[:, :-1]
    if starts_of_rows is not None:
        begins |= is_image & starts_of_rows
    numbers = (begins.flatten().long().cumsum(0).view_as(is_image) - 1).masked_fill(~is_image, -1)
    rows = begins.nonzero()[:, 0].tolist()
    lengths = torch.bincount(numbers[is_image], minlength=len(rows)).tolist()
    return BlockLayout(numbers, rows, lengths)
