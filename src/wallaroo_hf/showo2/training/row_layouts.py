"""How a training row becomes token ids: drawings, captions, chats and stories, each with what is learned of it."""

from __future__ import annotations

import bisect
import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

from ...common.chat_form import IM_END, IMAGE_BLOCK, answer_spans

__all__ = [
    *("LaidImage", "RowWriter", "TrainingTokens"),
    *("write_caption", "write_chat", "write_drawing", "write_plain", "write_story"),
]

IGNORED = -100


@dataclasses.dataclass(frozen=True)
class TrainingTokens:
    """Ids that layouts are made of.

    Attributes:
        start, end: of a row.
        image_start, image_end: around every image.
        image: in place of its time and of each of its tokens.
        flag: words at the beginning of a story.
    """

    start: int
    end: int
    image_start: int
    image_end: int
    image: int
    flag: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class LaidImage:
    """An image in a row.

    Attributes:
        tokens: how many it has.
        is_drawn: whether its velocity may be learned; what is shown is context.
    """

    tokens: int
    is_drawn: bool


class RowWriter:
    """Writes one row.

    Args:
        tokens: what it is made of.
        tokenize: text to ids.
        image_tokens: of each picture of the row, in order.
    """

    def __init__(
        self, tokens: TrainingTokens, tokenize: Callable[[str], Sequence[int]], image_tokens: Sequence[int]
    ) -> None:
        self.tokens, self._tokenize, self._image_tokens = tokens, tokenize, image_tokens
        self.input_ids: list[int] = []
        self.labels: list[int] = []
        self.images: list[LaidImage] = []

    def ids(self, ids: Sequence[int], learned: bool) -> RowWriter:
        """Adds tokens."""
        self.input_ids += ids
        self.labels += ids if learned else [IGNORED] * len(ids)
        return self

    def text(self, text: str, learned: bool) -> RowWriter:
        """Adds text."""
        return self.ids(list(self._tokenize(text)), learned)

    def image(self, is_drawn: bool, learned: bool) -> RowWriter:
        """Adds the next picture with its begin and end; these may be learned, its tokens are never.

        Args:
            is_drawn: see [`LaidImage`].
            learned: whether begin and end are.
        """
        laid = LaidImage(self._image_tokens[len(self.images)], is_drawn)
        self.images.append(laid)
        self.ids([self.tokens.image_start], learned)
        self.ids([self.tokens.image] * (laid.tokens + 1), False)
        return self.ids([self.tokens.image_end], learned)


def write_drawing(row: RowWriter, prompt: str, history: int = 0) -> None:
    """`start (image) prompt image end`: nothing of its text is learned, as released.

    Args:
        row: to write.
        prompt: its words; none for what guidance leads away from.
        history: pictures that are shown first.
    """
    row.ids([row.tokens.start], False)
    for _ in range(history):
        row.image(is_drawn=False, learned=False)
    row.text(prompt, False).image(is_drawn=True, learned=False).ids([row.tokens.end], False)


def write_caption(row: RowWriter, caption: str) -> None:
    """`start image caption end`, all of it learned but the image's tokens."""
    row.ids([row.tokens.start], True).image(is_drawn=False, learned=True)
    row.text(caption, True).ids([row.tokens.end], True)


def write_plain(row: RowWriter, turns: Sequence[tuple[str, str]]) -> None:
    """`start image (question answer end) ...`: a picture, then turns without their form; answers are learned.

    Args:
        row: to write.
        turns: questions, which may be empty, and answers.
    """
    row.ids([row.tokens.start], False).image(is_drawn=False, learned=False)
    for question, answer in turns:
        row.text(question, False).text(answer, True).ids([row.tokens.end], True)


def write_chat(row: RowWriter, rendered: str, roles: Sequence[str], offsets: Callable[[str], Any]) -> None:
    """A rendered chat; what the assistant says is learned, with the end of its turn, and begin and end of what it draws.

    Args:
        row: to write.
        rendered: by the chat's template, each picture as `<|vision_start|><|image_pad|><|vision_end|>`.
        roles: whose turn each picture is in.
        offsets: a text's ids and their ranges of characters.
    """
    # the newline behind an answer's end belongs to the next turn
    spans = [(start, rendered.rfind(IM_END, start, end) + len(IM_END)) for start, end in answer_spans(rendered)]
    rendered = rendered[: spans[-1][1]] if spans and not rendered[spans[-1][1] :].strip() else rendered
    ids, ranges = offsets(rendered)
    begins = [found.start() for found in re.finditer(re.escape(IMAGE_BLOCK), rendered)]
    for token, (begin, end) in zip(ids, ranges, strict=True):
        block = bisect.bisect_right(begins, begin) - 1
        learned = any(start <= begin and end <= stop for start, stop in spans)
        if block < 0 or begin >= begins[block] + len(IMAGE_BLOCK):
            row.ids([token], learned)
        elif token == row.tokens.image:  # its begin and end are written with it
            row.image(roles[block] == "assistant", learned)


def write_story(row: RowWriter, parts: Sequence[tuple[str, str | None]]) -> None:
    """`start flag text image text image ... end`: what the assistant says and draws is learned.

    Args:
        row: to write.
        parts: `(role, text)` in order, None for a picture.
    """
    row.ids([row.tokens.start], False).ids(list(row.tokens.flag), False)
    for role, text in parts:
        speaks = role == "assistant"
        if text is None:
            row.image(is_drawn=speaks, learned=speaks)
        else:
            row.text(text, speaks)
    row.ids([row.tokens.end], True)
