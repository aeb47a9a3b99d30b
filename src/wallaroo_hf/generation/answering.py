"""`converse`: answers of several rows, followed word by word and picture by picture."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from transformers import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from ..families.contract import Answer, Listener, Step, TextSettings
from .branches import split_rows, take_branch
from .drawing import DrawingArguments
from .seeded_text import SeededChoice

__all__ = ["converse"]


class RowFollower:
    """One row of an answer: sorts its ids into words and pictures, tells the listener, and knows when it is over.

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
        self.model, self.listener, self.row, self.max_new_tokens = model, listener, row, max_new_tokens
        self.grid = grid
        self.answer = Answer(prompt_tokens=prompt_tokens)
        self.over = False
        self._ends, self._starts = _end_ids(model), model.config.image_start_token_ids
        self._words: list[int] = []
        self._codes: list[int] | None = None  # of the picture that is being drawn
        self._num_words = 0

    def put(self, token: int) -> None:
        """Takes the next id."""
        if self.over:
            return
        if self._codes is not None:
            self._draw(token)
            return
        self._num_words += 1
        self.answer.new_tokens += 1
        if token in self._ends:
            self.end("stop")
        elif self.grid is not None and token in self._starts:
            self._close_words()
            self._codes = []
            self.listener.image_begins(self.row)
        else:
            self._words.append(token)
            if self.listener.token(self.row, token) is False:
                self.end("stopped")
        self._check_budget()

    def end(self, reason: Literal["stop", "length", "stopped"]) -> None:
        """The answer ends here; only the first time counts."""
        if self.over:
            return
        self.over = True
        self._close_words()
        rows = None if self._codes is None else self._decode(self._codes)
        if rows is not None:
            self.answer.pieces.append(rows)
            self.answer.partial = True
        self.answer.reason = reason
        self.listener.ended(self.row, self.answer)

    def _check_budget(self) -> None:
        if self._num_words >= self.max_new_tokens and self._codes is None:
            self.end("length")

    def _close_words(self) -> None:
        if self._words:
            self.answer.pieces.append(self._words)
        self._words = []

    def _draw(self, token: int) -> None:
        assert self._codes is not None and self.grid is not None
        config = self.model.config
        first_code = config.text_config.vocab_size
        if token >= first_code:
            self._codes.append(token - first_code)
            rows, rest = divmod(len(self._codes), self.grid[1])
            if rest == 0:
                step = Step(0, rows, self.grid[0], functools.partial(self._decode, tuple(self._codes)))
                if self.listener.image_step(self.row, step) is False:
                    self.end("stopped")
        elif token == config.generate_end_token_id:
            pixels = self._decode(self._codes)
            assert pixels is not None
            self.answer.pieces.append(pixels)
            self.answer.new_tokens += len(self._codes)
            num_codes, self._codes = len(self._codes), None
            self.listener.image_done(self.row, pixels, num_codes)
            self._check_budget()

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


class _Rows(BaseStreamer):
    """Hands each new id to the follower of its row; asks to stop when no row needs another one."""

    def __init__(self, rows: Sequence[RowFollower]) -> None:
        self.rows, self._prompt_seen = rows, False

    def put(self, value: torch.Tensor) -> None:
        """Takes the prompts `(B, L)` first, then the next ids `(B,)`."""
        if self._prompt_seen:
            for row, token in zip(self.rows, value.reshape(-1).tolist(), strict=True):
                row.put(token)
        self._prompt_seen = True

    def end(self) -> None:
        """Nothing comes any more: answers that were cut off end here."""
        for row in self.rows:
            row.end("length")

    @property
    def stopped(self) -> bool:
        """Whether no row needs another token."""
        return all(row.over for row in self.rows)


class _Over(StoppingCriteria):
    """Ends each row where its follower is done with it."""

    def __init__(self, rows: Sequence[RowFollower]) -> None:
        self.rows = rows

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> torch.BoolTensor:
        """`(B,)`, True where a row needs no more tokens."""
        return torch.tensor([row.over for row in self.rows], device=input_ids.device)


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
) -> list[Answer]:
    """See [`wallaroo_hf.families.contract.DrawingModel.converse`].

    Text is chosen by [`SeededChoice`], so that a seed gives the same answer alone or in any batch. In auto mode rows are
    answered one after the other, because a drawing goes on over its row's own cache.

    Args:
        model: a `WallarooForConditionalGeneration`.
        batch: chats as the processor prepares them, left-padded.
        mode: whether they may only answer, or draw as well.
        follow: hears what comes, row by row.
        generators: one per chat, for its words and its drawings; None = nothing is sampled.
        max_new_tokens: of text, one per chat.
        text: how words are chosen.
        drawing: settings of drawings, by their names.

    Raises:
        ValueError: for settings or tensors that cannot be; see `generate`.
    """
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    if len(max_new_tokens) != len(lengths) or (generators is not None and len(generators) != len(lengths)):
        raise ValueError(
            f"There are {len(lengths)} chats, but {len(max_new_tokens)} limits and {len(generators or ())} generators; "
            "give one of each per chat."
        )
    if generators is None and text.temperature > 0:
        raise ValueError("Text is sampled (`temperature` is above 0), but there are no generators; give one per chat.")
    grids = [tuple(grid) for grid in batch["target_grid_hw"].tolist()] if mode == "auto" else [None] * len(lengths)
    rows = [
        RowFollower(model, follow, row, grid, length, budget)
        for row, (grid, length, budget) in enumerate(zip(grids, lengths, max_new_tokens, strict=True))
    ]
    if mode == "text":
        sampled = generators if text.temperature > 0 else None
        model.generate(**batch, generation_mode="text", do_sample=False, **_following(rows, sampled, text))
    else:
        arguments, sampling = DrawingArguments.read(drawing, None)
        for index, (row, one) in enumerate(zip(rows, _each_row(model, batch), strict=True)):
            generator = None if generators is None else generators[index]
            sampled = None if generator is None or text.temperature == 0 else [generator]
            # a copy, so that a seed's pictures do not depend on how many words were sampled before them
            own = dataclasses.replace(arguments, generator=None if generator is None else generator.clone_state())
            kwargs = {**one, "do_sample": True, **_following([row], sampled, text)}
            model._alternate(own, None, kwargs, sampling)
    return [row.answer for row in rows]


def _following(
    rows: Sequence[RowFollower], generators: Sequence[torch.Generator] | None, text: TextSettings
) -> dict[str, Any]:
    """Arguments of `generate` that choose the words of rows and follow them."""
    choice = SeededChoice(generators, text.temperature or 1.0, text.top_k or None, text.top_p)
    return {
        "max_new_tokens": max(row.max_new_tokens for row in rows),
        "logits_processor": LogitsProcessorList([choice]),
        "stopping_criteria": StoppingCriteriaList([_Over(rows)]),
        "streamer": _Rows(rows),
    }


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


def _end_ids(model: Any) -> set[int]:
    ends = model.generation_config.eos_token_id
    return {ends} if isinstance(ends, int) else set(ends or ())
