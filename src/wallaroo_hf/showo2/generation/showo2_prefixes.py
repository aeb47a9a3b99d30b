"""Prompts of Show-o2 from where a cache ends: [`ShowO2Reader`], and [`MixedMemory`] of a chat in which it draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import DynamicCache

from ...common.kept_chats import LANGUAGE, PrefixReader, fill_cache, language_parts
from ...common.prompt_rows import PromptRow, SeenBlock, runs, unpadded
from ...families.contract import Answer
from ...families.prefixes import Prefixes, Prompt

__all__ = ["MixedMemory", "ShowO2Reader"]

_HIDDEN = "hidden states"  # the language model's last, which the flow head reads when a drawing begins
_PIXELS, _LATENTS = "pixel_values", "image_latents"


class ShowO2Reader(PrefixReader):
    """Reads prompts with clean pictures, each in one piece.

    Args:
        model: a [`ShowO2ForConditionalGeneration`].
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model.config.text_config)
        self.model = model

    def rows(self, batch: Mapping[str, Any]) -> list[PromptRow]:
        """Rows and their pictures, time and all; see [`PrefixReader.rows`].

        Args:
            batch: see there.

        Raises:
            ValueError: if there are not as many pictures as places for them.
        """
        name = _PIXELS if batch.get(_PIXELS) is not None else _LATENTS
        given = list(batch.get(name) or ())
        config, rows, number = self.model.config, [], 0
        for ids in unpadded(batch):
            places = runs(((ids == config.image_token_id) | (ids == config.video_token_id))[0])
            own = given[number : number + len(places)]
            if len(own) != len(places):
                raise ValueError(
                    f"The prompts show more pictures than the {len(given)} of `{name}`; pass all of the processor's "
                    "tensors."
                )
            number += len(places)
            blocks = [SeenBlock(*place, {name: [one]}) for place, one in zip(places, own, strict=True)]
            rows.append(PromptRow(ids, blocks))
        return rows

    def read(self, row: PromptRow, cache: DynamicCache) -> torch.Tensor | None:
        """See [`PrefixReader.read`].

        Args:
            row: what is read.
            cache: is filled.

        Returns:
            The last hidden states of what was read, `(1, T, hidden_size)`; None where nothing was.
        """
        start, stop = int(cache.get_seq_length()), len(row) - 1
        if start >= stop:
            return None
        tensors = row.tensors(start)
        latents = tensors.get(_LATENTS)
        if _PIXELS in tensors:
            latents = self.model.encode_pixels(tensors[_PIXELS])
        hidden_states: torch.Tensor = self.model.model(
            input_ids=row.ids[:, start:stop],
            attention_mask=torch.ones_like(row.ids[:, :stop]),
            cache=cache,
            image_latents=latents,
            use_cache=True,
        ).last_hidden_state
        return hidden_states


class MixedMemory:
    """What was read of a chat before, for a row that writes and draws.

    Args:
        model: a [`ShowO2ForConditionalGeneration`].
        row: the prompt.
        prefixes: that its beginning may be in.
        answer: is told how many tokens were not read again.
    """

    def __init__(self, model: Any, row: PromptRow, prefixes: Prefixes, answer: Answer) -> None:
        self.reader, self.row, self.prefixes, self.answer = ShowO2Reader(model), row, prefixes, answer

    def recall(self, language: DynamicCache, hidden_states: list[torch.Tensor]) -> None:
        """Fills what a row remembers with all of the prompt but its last token, if its beginning was kept.

        Args:
            language: empty cache of the language model.
            hidden_states: of what is in it, one tensor per forward; empty.
        """
        if not self.reader.keeps:
            return
        self.answer.reused_tokens, parts = self.prefixes.find(self.row.prompt, [LANGUAGE, _HIDDEN])
        if self.answer.reused_tokens:
            fill_cache(language, parts)
            hidden_states += parts[_HIDDEN]
            read = self.reader.read(self.row, language)
            hidden_states += [] if read is None else [read]

    def keep(self, ids: torch.Tensor, language: DynamicCache, hidden_states: list[torch.Tensor]) -> None:
        """Keeps what was read and written before the first picture.

        Args:
            ids: `(1, T)`, prompt and answer so far.
            language: cache of the language model.
            hidden_states: of all that is in it.
        """
        length = min(ids.shape[1], int(language.get_seq_length()))
        if not self.reader.keeps or not length:
            return
        said = Prompt(tuple(ids[0].tolist()), self.row.prompt.blocks)
        parts = {**language_parts(language), _HIDDEN: [torch.cat(hidden_states, dim=1)]}
        self.prefixes.keep(said.up_to(length), parts)
