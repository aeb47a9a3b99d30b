"""Answers of several rows while `generate` writes them: whose word it is, who listens, and when a row is over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from transformers import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from ..families.contract import Answer, Listener, Step, TextSettings
from .seeded_text import SeededChoice

__all__ = ["FollowedRow", "RowsOver", "RowsStreamer", "check_chats", "end_ids", "following"]


class FollowedRow:
    """One row of an answer: keeps its words and pictures, tells the listener, and knows when it is over.

    Args:
        listener: see [`wallaroo_hf.families.contract.Listener`].
        row: its number.
        ends: ids that end it.
        starts: ids that begin a picture; none where it does not draw.
        prompt_tokens: what it was asked with.
        max_new_tokens: of text.
    """

    def __init__(
        self,
        listener: Listener,
        row: int,
        ends: set[int],
        starts: Sequence[int],
        prompt_tokens: int,
        max_new_tokens: int,
    ) -> None:
        self.listener, self.row, self.max_new_tokens = listener, row, max_new_tokens
        self.answer = Answer(prompt_tokens=prompt_tokens)
        self.over = False
        self.draws = False  # whether a picture has begun and is not complete
        self._ends, self._starts = ends, starts
        self._words: list[int] = []
        self._num_words = 0

    @property
    def words_left(self) -> int:
        """How many more tokens of text it may have."""
        return self.max_new_tokens - self._num_words

    def put(self, token: int) -> None:
        """Takes the next id of text."""
        if self.over:
            return
        self._num_words += 1
        self.answer.new_tokens += 1
        if token in self._ends:
            self.end("stop")
        elif token in self._starts:
            self.begin_picture()
        else:
            self._words.append(token)
            if self.listener.token(self.row, token) is False:
                self.end("stopped")
        self._check_budget()

    def begin_picture(self) -> None:
        """A picture comes next."""
        self._close_words()
        self.draws = True
        self.listener.image_begins(self.row)

    def draw(self, step: Step) -> bool:
        """The picture that has begun came further; returns whether it goes on."""
        if self.listener.image_step(self.row, step) is False:
            self.end("stopped")
        return not self.over

    def finish_picture(self, pixels: torch.Tensor, num_tokens: int) -> None:
        """The picture that has begun is complete.

        Args:
            pixels: `(3, H, W)` in [-1, 1].
            num_tokens: that it is made of.
        """
        self.answer.pieces.append(pixels)
        self.answer.new_tokens += num_tokens
        self.draws = False
        self.listener.image_done(self.row, pixels, num_tokens)
        self._check_budget()

    def unfinished_picture(self) -> torch.Tensor | None:
        """What is there of the picture that has begun, `(3, H, W)` in [-1, 1]; families know it."""
        return None

    def end(self, reason: Literal["stop", "length", "stopped"]) -> None:
        """The answer ends here; only the first time counts."""
        if self.over:
            return
        self.over = True
        self._close_words()
        pixels = self.unfinished_picture() if self.draws else None
        if pixels is not None:
            self.answer.pieces.append(pixels)
            self.answer.partial = True
        self.answer.reason = reason
        self.listener.ended(self.row, self.answer)

    def _check_budget(self) -> None:
        if self._num_words >= self.max_new_tokens and not self.draws:
            self.end("length")

    def _close_words(self) -> None:
        if self._words:
            self.answer.pieces.append(self._words)
        self._words = []


class RowsStreamer(BaseStreamer):
    """Hands each new id to the follower of its row; asks to stop when no row needs another one."""

    def __init__(self, rows: Sequence[FollowedRow]) -> None:
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


class RowsOver(StoppingCriteria):
    """Ends each row where its follower is done with it."""

    def __init__(self, rows: Sequence[FollowedRow]) -> None:
        self.rows = rows

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> torch.BoolTensor:
        """`(B,)`, True where a row needs no more tokens."""
        return torch.tensor([row.over for row in self.rows], device=input_ids.device)


def check_chats(
    num_chats: int,
    generators: Sequence[torch.Generator] | None,
    max_new_tokens: Sequence[int],
    text: TextSettings,
) -> None:
    """Makes sure that there is one of each per chat, and something to sample with where words are sampled.

    Args:
        num_chats: in the batch.
        generators: one per chat, or None.
        max_new_tokens: one per chat.
        text: how words are chosen.

    Raises:
        ValueError: if not.
    """
    if len(max_new_tokens) != num_chats or (generators is not None and len(generators) != num_chats):
        raise ValueError(
            f"There are {num_chats} chats, but {len(max_new_tokens)} limits and {len(generators or ())} generators; "
            "give one of each per chat."
        )
    if generators is None and text.temperature > 0:
        raise ValueError("Text is sampled (`temperature` is above 0), but there are no generators; give one per chat.")


def following(
    rows: Sequence[FollowedRow], generators: Sequence[torch.Generator] | None, text: TextSettings
) -> dict[str, Any]:
    """Arguments of `generate` that choose the words of rows and follow them.

    Args:
        rows: followed.
        generators: one per row; None = the likeliest words.
        text: how words are chosen.
    """
    choice = SeededChoice(generators, text.temperature or 1.0, text.top_k or None, text.top_p)
    return {
        "max_new_tokens": max(row.max_new_tokens for row in rows),
        "logits_processor": LogitsProcessorList([choice]),
        "stopping_criteria": StoppingCriteriaList([RowsOver(rows)]),
        "streamer": RowsStreamer(rows),
    }


def end_ids(model: Any) -> set[int]:
    """Ids that end what a model says, as its generation config has them."""
    ends = model.generation_config.eos_token_id
    return {ends} if isinstance(ends, int) else set(ends or ())
