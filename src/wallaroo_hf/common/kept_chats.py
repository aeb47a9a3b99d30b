"""Chats that go on from what was read of them before: [`PrefixReader`], [`KeptBatch`]."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F
from transformers import DynamicCache

from ..families.prefixes import KeptParts, Prefixes
from .prompt_rows import PromptRow
from .row_following import FollowedRow

__all__ = ["LANGUAGE", "KeptBatch", "PrefixReader", "fill_cache", "language_parts"]

LANGUAGE = "language"  # keys and values of the language model, layer by layer


class PrefixReader(ABC):
    """Reads prompts of a family from where a cache ends.

    Args:
        text_config: of the language model.
    """

    def __init__(self, text_config: Any) -> None:
        self.text_config = text_config

    @abstractmethod
    def rows(self, batch: Mapping[str, Any]) -> list[PromptRow]:
        """The rows of a batch that the processor prepared.

        Args:
            batch: its tensors, on the model's device.
        """

    @abstractmethod
    def read(self, row: PromptRow, cache: DynamicCache) -> Any:
        """Reads a row from where its cache ends up to its last token, which is left for what follows it.

        Args:
            row: what is read.
            cache: of its beginning; is filled.
        """

    def positions(self, row: PromptRow) -> torch.Tensor | None:
        """Positions `(3, 1, T)` of a row where they are not those of its tokens."""
        return None

    @property
    def keeps(self) -> bool:
        """Whether a beginning of what was read can be taken out of its cache."""
        return set(getattr(self.text_config, "layer_types", None) or ["full_attention"]) == {"full_attention"}


class KeptBatch:
    """A batch of chats to be answered by `generate`, whose rows go on from what was kept of them.

    If nothing was kept of any row, the batch is read as it always is. Otherwise each row is read by itself from where its
    prefix ends, and the rows are joined, left-padded.

    Args:
        reader: reads rows.
        batch: the processor's tensors, left-padded, on the model's device.
        prefixes: one per row, None for a row of which nothing is kept; None = for all of them.
        followed: hear what is said, one per row.
        static: whether the model was told to make a cache of its own, which nothing can be taken out of.

    Attributes:
        inputs: what `generate` takes in the place of the batch.
    """

    def __init__(
        self,
        reader: PrefixReader,
        batch: Mapping[str, Any],
        prefixes: Sequence[Prefixes | None] | None,
        followed: Sequence[FollowedRow],
        static: bool = False,
    ) -> None:
        self.inputs: dict[str, Any] = dict(batch)
        self.cache: DynamicCache | None = None
        if prefixes is None or static or not reader.keeps or not any(one is not None for one in prefixes):
            return
        self._prefixes, self._followed = prefixes, followed
        self._rows = reader.rows(batch)
        self.cache = DynamicCache(config=reader.text_config)
        found = [
            (0, {}) if own is None else own.find(row.prompt, [LANGUAGE])
            for row, own in zip(self._rows, prefixes, strict=True)
        ]
        for one, (length, _) in zip(followed, found, strict=True):
            one.answer.reused_tokens = length
        if any(length for length, _ in found):
            self._read(reader, [parts for _, parts in found])
        else:
            self.inputs["cache"] = self.cache

    def _read(self, reader: PrefixReader, found: Sequence[KeptParts]) -> None:
        caches = []
        for row, parts in zip(self._rows, found, strict=True):
            cache = DynamicCache(config=reader.text_config)
            fill_cache(cache, parts)
            reader.read(row, cache)
            caches.append(cache)
        ids, mask = self.inputs["input_ids"], self.inputs["attention_mask"]
        width = ids.shape[1]
        missing = [width - len(row) for row in self._rows]
        self.cache = _side_by_side(caches, missing, reader.text_config)
        self.inputs = {"input_ids": ids, "attention_mask": mask, "cache": self.cache}
        positions = [reader.positions(row) for row in self._rows]
        own = [one for one in positions if one is not None]
        if len(own) == len(self._rows):
            # (1, B, T): positions in the row, as transformers has them
            plain = (mask.long().cumsum(-1) - 1).clamp(min=0)[None]
            padded = [F.pad(one, (pad, 0), value=1) for one, pad in zip(own, missing, strict=True)]
            self.inputs["position_ids"] = torch.cat([plain, torch.cat(padded, dim=1).to(plain)])

    def keep(self, sequences: torch.Tensor) -> None:
        """Keeps what was read and written of each row.

        Args:
            sequences: `(B, T)` ids, as `generate` returned them.
        """
        if self.cache is None:
            return
        width = self.inputs["input_ids"].shape[1]
        parts = language_parts(self.cache)
        for index, (row, own, followed) in enumerate(zip(self._rows, self._prefixes, self._followed, strict=True)):
            if own is None:
                continue
            pad = width - len(row)
            ids = sequences[index, pad : width + followed.answer.new_tokens].tolist()
            length = min(len(ids), int(self.cache.get_seq_length()) - pad)
            alone = {name: [one[index : index + 1, :, pad:] for one in tensors] for name, tensors in parts.items()}
            said = type(row.prompt)(tuple(ids), row.prompt.blocks)
            own.keep(said.up_to(length), alone)


def fill_cache(cache: DynamicCache, parts: KeptParts) -> None:
    """Puts what was kept into an empty cache of the language model; what goes on from it leaves what was kept as it is.

    Args:
        cache: empty.
        parts: see [`KeptParts`]; empty = nothing.
    """
    tensors = parts.get(LANGUAGE, ())
    for index in range(len(tensors) // 2):
        cache.update(tensors[2 * index], tensors[2 * index + 1], index)


def language_parts(cache: Any) -> dict[str, list[torch.Tensor]]:
    """Keys and values of a cache, as they are kept."""
    return {LANGUAGE: [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]}


def _side_by_side(caches: Sequence[DynamicCache], missing: Sequence[int], text_config: Any) -> DynamicCache:
    """Caches of one row each as one, with so many empty columns before each."""
    joined = DynamicCache(config=text_config)
    for index, layers in enumerate(zip(*(cache.layers for cache in caches), strict=True)):
        keys = [F.pad(layer.keys, (0, 0, pad, 0)) for layer, pad in zip(layers, missing, strict=True)]
        values = [F.pad(layer.values, (0, 0, pad, 0)) for layer, pad in zip(layers, missing, strict=True)]
        joined.update(torch.cat(keys), torch.cat(values), index)
    return joined
