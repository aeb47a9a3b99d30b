"""`converse`: answers of several rows, followed word by word and picture by picture."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from ..common.kept_chats import KeptBatch
from ..common.row_following import FollowedRow, check_chats, end_ids, following
from ..families.contract import Answer, Listener, Step, TextSettings
from ..families.prefixes import Prefixes
from .branches import split_rows, take_branch
from .drawing import DrawingArguments
from .wallaroo_prefixes import Memory, WallarooReader

__all__ = ["converse"]


class RowFollower(FollowedRow):
    """A row of an answer: sorts its ids into words and pictures.

    Args:
        model: says which ids mean what, and decodes pictures.
        listener: see [`wallaroo_hf.families.contract.Listener`].
        row: its number.
        grid: `(rows, cols)` of its pictures; None where it does not draw.
        prompt_tokens: what it was asked with.
        max_new_tokens: of text.
    """

    def __init__(
        self,
        model: Any,
        listener: Listener,
        row: int,
        grid: tuple[int, int] | None,
        prompt_tokens: int,
        max_new_tokens: int,
    ) -> None:
        starts = () if grid is None else model.config.image_start_token_ids
        super().__init__(listener, row, end_ids(model), starts, prompt_tokens, max_new_tokens)
        self.model, self.grid = model, grid
        self._codes: list[int] = []  # of the picture that is being drawn

    def put(self, token: int) -> None:
        """Takes the next id."""
        if not self.draws:
            super().put(token)
        elif not self.over:
            self._put_code(token)

    def unfinished_picture(self) -> torch.Tensor | None:
        """The complete rows of the picture that is being drawn."""
        return self._decode(self._codes)

    def _put_code(self, token: int) -> None:
        assert self.grid is not None
        config = self.model.config
        first_code = config.text_config.vocab_size
        if token >= first_code:
            self._codes.append(token - first_code)
            rows, rest = divmod(len(self._codes), self.grid[1])
            if rest == 0:
                self.draw(Step(0, rows, self.grid[0], functools.partial(self._decode, tuple(self._codes))))
        elif token == config.generate_end_token_id:
            pixels = self._decode(self._codes)
            assert pixels is not None
            num_codes, self._codes = len(self._codes), []
            self.finish_picture(pixels, num_codes)

    @torch.no_grad()
    def _decode(self, codes: Sequence[int]) -> torch.Tensor | None:
        """The complete rows of a picture, `(3, H, W)` around [-1, 1]; None before the first one."""
        assert self.grid is not None
        cols = self.grid[1]
        rows = len(codes) // cols
        if rows == 0:
            return None
        whole = torch.tensor(codes[: rows * cols], device=self.model.device).view(1, rows, cols)
        return self.model.vq_model.decode(whole)[0]


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
        model: a `WallarooForConditionalGeneration`.
        batch: chats as the processor prepares them, left-padded.
        mode: whether they may only answer, or draw as well.
        follow: hears what comes, row by row.
        generators: one per chat, for its words and its drawings; None = nothing is sampled.
        max_new_tokens: of text, one per chat.
        text: how words are chosen.
        drawing: settings of drawings, by their names.
        prefixes: what was read of each chat before, one per row; None = nothing is kept.

    Raises:
        ValueError: for settings or tensors that cannot be; see `generate`.
    """
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    check_chats(len(lengths), generators, max_new_tokens, text)
    grids = [tuple(grid) for grid in batch["target_grid_hw"].tolist()] if mode == "auto" else [None] * len(lengths)
    rows = [
        RowFollower(model, follow, row, grid, length, budget)
        for row, (grid, length, budget) in enumerate(zip(grids, lengths, max_new_tokens, strict=True))
    ]
    if mode == "text":
        sampled = generators if text.temperature > 0 else None
        static = model.generation_config.cache_implementation is not None
        kept = KeptBatch(WallarooReader(model), batch, prefixes, rows, static)
        said = following(rows, sampled, text)
        kept.keep(model.generate(**kept.inputs, generation_mode="text", do_sample=False, **said))
    else:
        arguments, sampling = DrawingArguments.read(drawing, None)
        for index, (row, one) in enumerate(zip(rows, _each_row(model, batch), strict=True)):
            generator = None if generators is None else generators[index]
            sampled = None if generator is None or text.temperature == 0 else [generator]
            # a copy, so that a seed's pictures do not depend on how many words were sampled before them
            own = dataclasses.replace(arguments, generator=None if generator is None else generator.clone_state())
            kwargs = {**one, "do_sample": True, **following([row], sampled, text)}
            memory = None if prefixes is None else Memory(WallarooReader(model), prefixes[index], row.answer)
            model._alternate(own, None, kwargs, sampling, memory)
    return [row.answer for row in rows]


def _each_row(model: Any, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a batch that was prepared for auto mode as batches of one."""
    tensors = dict(batch)
    grids = tensors.pop("target_grid_hw")
    branches = {prefix: take_branch(tensors, prefix) for prefix in ("", "negative_")}
    rows: list[dict[str, Any]] = [{"target_grid_hw": grids[index : index + 1]} for index in range(len(grids))]
    for prefix, branch in branches.items():
        for row, own in zip(rows, [] if branch is None else split_rows(model, branch)):
            row |= own.tensors(prefix)
    return rows
