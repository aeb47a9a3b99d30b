"""Prompts of a batch row by row, with the pictures that belong to each: [`PromptRow`]."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..families.prefixes import Block, Prompt

__all__ = ["PromptRow", "SeenBlock", "joined_tensors", "runs", "unpadded"]

_Tensors = Mapping[str, "torch.Tensor | list[torch.Tensor]"]


@dataclass(frozen=True)
class SeenBlock:
    """A picture or video of a row.

    Attributes:
        start, end: where its tokens are in the row.
        tensors: all that the model is given of it, by the names of the processor; pictures of an image codec in lists.
    """

    start: int
    end: int
    tensors: _Tensors

    @property
    def digest(self) -> bytes:
        """What it is known by."""
        digest = hashlib.blake2b(digest_size=32)
        for name, value in sorted(self.tensors.items()):
            for tensor in value if isinstance(value, list) else [value]:
                digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.digest()


@dataclass(frozen=True)
class PromptRow:
    """One row of a batch of prompts.

    Attributes:
        ids: `(1, T)`, without padding.
        seen: its pictures and videos, in the order of their places.
    """

    ids: torch.Tensor
    seen: Sequence[SeenBlock] = ()

    def __len__(self) -> int:
        return self.ids.shape[1]

    @functools.cached_property
    def prompt(self) -> Prompt:
        """What a store knows it by."""
        blocks = tuple(Block(one.start, one.end, one.digest) for one in self.seen)
        return Prompt(tuple(self.ids[0].tolist()), blocks)

    def tensors(self, start: int = 0) -> dict[str, Any]:
        """What the model is given of the pictures from a position on.

        Raises:
            ValueError: if the position is within one.
        """
        for one in self.seen:
            if one.start < start < one.end:
                raise ValueError(
                    f"The first {start} tokens of a prompt are in the cache, which ends within a picture (tokens "
                    f"{one.start} to {one.end}); take the picture out of it: cache.crop({one.start - start})."
                )
        return joined_tensors(one.tensors for one in self.seen if one.start >= start)


def joined_tensors(parts: Iterable[_Tensors]) -> dict[str, Any]:
    """Tensors of several pictures as those of a batch: one below the other, or in one list."""
    lists: dict[str, list[Any]] = {}
    for part in parts:
        for name, value in part.items():
            lists.setdefault(name, []).append(value)
    return {
        name: [one for value in values for one in value] if isinstance(values[0], list) else torch.cat(values)
        for name, values in lists.items()
    }


def unpadded(batch: Mapping[str, Any]) -> list[torch.Tensor]:
    """The ids of each row `(1, T)` of a batch without its padding.

    Args:
        batch: holds `input_ids` `(B, L)`, and where rows are padded `attention_mask`.
    """
    ids, mask = batch["input_ids"], batch.get("attention_mask")
    if mask is None:
        return list(ids.split(1))
    return [own[shown.bool()].unsqueeze(0) for own, shown in zip(ids, mask, strict=True)]


def runs(chosen: torch.Tensor) -> list[tuple[int, int]]:
    """Where a bool vector `(T,)` is True: first positions, and those behind the last."""
    edges = torch.nn.functional.pad(chosen.to(torch.int8), (1, 1)).diff()
    return list(zip((edges == 1).nonzero()[:, 0].tolist(), (edges == -1).nonzero()[:, 0].tolist(), strict=True))
