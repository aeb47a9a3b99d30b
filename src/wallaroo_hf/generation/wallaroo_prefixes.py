"""Prompts of Wallaroo from where a cache ends: [`WallarooReader`], and [`Memory`] of a chat in which it draws."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache

from ..common.kept_chats import LANGUAGE, fill_cache, language_parts
from ..common.navit_prefixes import NavitReader
from ..common.prompt_rows import PromptRow
from ..families.contract import Answer
from ..families.prefixes import Prefixes, Prompt
from .branches import Branch

__all__ = ["Memory", "WallarooReader"]


class WallarooReader(NavitReader):
    """Reads prompts that may also show sources to edit, which the image tokenizer sees.

    Args:
        model: a `WallarooForConditionalGeneration`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model.model)

    def types(self, ids: torch.Tensor) -> torch.Tensor:
        """See [`NavitReader.types`]; placeholders of sources are none of the vision tower's.

        Args:
            ids: `(1, T)`.
        """
        types: torch.Tensor = self.body.mm_token_type_ids(ids)
        return types

    def other_blocks(self, ids: torch.Tensor) -> list[tuple[int, int, str]]:
        """Sources, with the tokens that open and close them.

        Args:
            ids: `(1, T)`.
        """
        config = self.body.config
        starts, ends = (
            (ids[0] == token).nonzero()[:, 0].tolist()
            for token in (config.pixel_start_token_id, config.pixel_end_token_id)
        )
        return [(start, end + 1, "source_pixel_values") for start, end in zip(starts, ends)]


class Memory:
    """What was read of a chat before, for one row that writes and draws over its own cache.

    Args:
        reader: reads it from there on.
        prefixes: that its beginning may be in; None = nothing is kept.
        answer: is told how many tokens were not read again.
    """

    def __init__(self, reader: WallarooReader, prefixes: Prefixes | None, answer: Answer) -> None:
        self.reader, self.prefixes, self.answer = reader, prefixes, answer

    def recall(self, row: Branch, cache: DynamicCache) -> None:
        """Fills an empty cache with all of a row but its last token, if its beginning was kept."""
        if self.prefixes is None or not self.reader.keeps:
            return
        prompt = self._row(row)
        self.answer.reused_tokens, parts = self.prefixes.find(prompt.prompt, [LANGUAGE])
        if self.answer.reused_tokens:
            fill_cache(cache, parts)
            self.reader.read(prompt, cache)

    def keep(self, row: Branch, ids: torch.Tensor, cache: DynamicCache) -> None:
        """Keeps what was read and written, up to the first picture that was drawn: chats show it in another place.

        Args:
            row: the prompt.
            ids: `(1, T)`, prompt and answer.
            cache: of them.
        """
        if self.prefixes is None or not self.reader.keeps:
            return
        prompt = self._row(row).prompt
        starts = torch.isin(ids[0], ids.new_tensor(self.reader.body.config.image_start_token_ids))
        drawn = starts[len(prompt.ids) :].nonzero()
        end = len(prompt.ids) + int(drawn[0]) if len(drawn) else ids.shape[1]
        said = Prompt(tuple(ids[0].tolist()), prompt.blocks)
        self.prefixes.keep(said.up_to(min(end, int(cache.get_seq_length()))), language_parts(cache))

    def _row(self, row: Branch) -> PromptRow:
        return self.reader.rows({"input_ids": row.input_ids, **row.pictures})[0]
