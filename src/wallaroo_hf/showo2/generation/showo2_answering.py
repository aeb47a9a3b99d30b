"""`converse` of Show-o2: answers of several rows, followed word by word and picture by picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from ...common.kept_chats import KeptBatch
from ...common.row_following import FollowedRow, check_chats, end_ids, following
from ...families.contract import Answer, Listener, TextSettings
from ...families.prefixes import Prefixes
from .flow_drawing import FlowGroup, FlowSettings
from .mixed_generation import MixedRow, split_rows
from .showo2_prefixes import MixedMemory, ShowO2Reader

__all__ = ["converse"]


class DrawingRow(FollowedRow):
    """A row of an answer that may draw.

    Args:
        model: draws.
        listener: see [`wallaroo_hf.families.contract.Listener`].
        row: its number.
        prompt_tokens: what it was asked with.
        max_new_tokens: of text.
    """

    def __init__(self, model: Any, listener: Listener, row: int, prompt_tokens: int, max_new_tokens: int) -> None:
        starts = (model.config.vision_start_token_id,)
        super().__init__(listener, row, end_ids(model), starts, prompt_tokens, max_new_tokens)
        self.group: FlowGroup | None = None  # the picture that is being drawn

    def unfinished_picture(self) -> torch.Tensor | None:
        """What the picture that is being drawn points to."""
        return None if self.group is None else self.group.pixels(0, False)


@torch.no_grad()
def converse(
    model: Any,
    batch: Mapping[str, Any],
    mode: Literal["text", "auto"],
    follow: Listener,
    generators: Sequence[torch.Generator] | None,
    max_new_tokens: Sequence[int],
    text: TextSettings,
    drawing: Mapping[str, Any],
    prefixes: Sequence[Prefixes | None] | None = None,
) -> list[Answer]:
    """See [`wallaroo_hf.families.contract.DrawingModel.converse`].

    Text is chosen by [`wallaroo_hf.common.seeded_text.SeededChoice`], so that a seed gives the same answer alone or in any
    batch. In auto mode rows are answered one after the other, because a drawing goes on over its row's own cache.

    Args:
        model: a [`ShowO2ForConditionalGeneration`].
        batch: chats as the processor prepares them, left-padded.
        mode: whether they may only answer, or draw as well.
        follow: hears what comes, row by row.
        generators: one per chat, for its words and its drawings; None = nothing is sampled.
        max_new_tokens: of text, one per chat.
        text: how words are chosen.
        drawing: settings of drawings, by their names.
        prefixes: what was read of each chat before, one per row; None = nothing is kept. Released settings
            (`published_eval`) read otherwise, and keep nothing.

    Raises:
        ValueError: for settings or tensors that cannot be; see `generate`.
    """
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    check_chats(len(lengths), generators, max_new_tokens, text)
    settings = FlowSettings.read(drawing, model.generation_config)
    if mode == "text":
        ends = end_ids(model)
        rows = [
            FollowedRow(follow, row, ends, (), length, budget)
            for row, (length, budget) in enumerate(zip(lengths, max_new_tokens, strict=True))
        ]
        sampled = generators if text.temperature > 0 else None
        static = model.generation_config.cache_implementation is not None
        kept = KeptBatch(ShowO2Reader(model), batch, prefixes, rows, static or settings.published_eval)
        kwargs = {**kept.inputs, "do_sample": False, "published_eval": settings.published_eval}
        kept.keep(model.generate(generation_mode="text", **kwargs, **following(rows, sampled, text)))
        return [row.answer for row in rows]
    answers = []
    prompts = None if prefixes is None or settings.published_eval else ShowO2Reader(model).rows(batch)
    for index, inputs in enumerate(split_rows(model, batch, settings)):
        row = DrawingRow(model, follow, index, lengths[index], max_new_tokens[index])
        generator = None if generators is None else generators[index]
        sampled = None if generator is None or text.temperature == 0 else [generator]
        # a copy, so that a seed's pictures do not depend on how many words were sampled before them
        own = None if generator is None else generator.clone_state()
        told = following([row], sampled, text)
        told.pop("max_new_tokens")
        streamer = told.pop("streamer")
        mixed = MixedRow(model, inputs, settings, own)
        kept_before = None if prefixes is None else prefixes[index]
        if prompts is not None and kept_before is not None:
            mixed.memory = MixedMemory(model, prompts[index], kept_before, row.answer)
        mixed.tell(max_new_tokens[index], None, {**told, "do_sample": False}, streamer, row)
        streamer.end()
        answers.append(row.answer)
    return answers
