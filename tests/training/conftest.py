"""Rows of every task, small enough to train on in a moment."""

from __future__ import annotations

from typing import Any

import pytest

from helpers import picture


def drawing_row(prompt: str, target: Any, source: Any = None, **more: Any) -> dict[str, Any]:
    """A row that draws `target` from words, or edits `source` into it."""
    asked = ([{"type": "image"}] if source is not None else []) + [{"type": "text", "text": prompt}]
    images = ([source] if source is not None else []) + [target]
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": [{"type": "image"}]}]
    return {"messages": messages, "images": images, **more}


def answer_row(question: str, answer: str, image: Any = None, **more: Any) -> dict[str, Any]:
    """A row that answers, about an image or without one."""
    asked = ([{"type": "image"}] if image is not None else []) + [{"type": "text", "text": question}]
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "images": [] if image is None else [image], **more}


def training_rows() -> list[dict[str, Any]]:
    """Eight rows: generation, editing and understanding, in both languages, of several sizes."""
    return eight_rows()


@pytest.fixture(scope="module")
def rows_of_module() -> list[dict[str, Any]]:
    """The same, for fixtures that live longer."""
    return eight_rows()


def eight_rows() -> list[dict[str, Any]]:
    """Eight rows, new ones at each call."""
    small = {"height": 32, "width": 32}
    wide = {"height": 32, "width": 48}
    return [
        drawing_row("a red boat", picture(1), **small),
        drawing_row("make it blue", picture(2), picture(3), **wide),
        answer_row("What is it?", "A boat.", picture(4, 56, 56)),
        drawing_row("一只猫", picture(5), **wide),
        drawing_row("换成绿色", picture(6), picture(7), **small),
        answer_row("这是什么？", "一只猫。", picture(8, 56, 84)),
        answer_row("Say hello.", "Hello there."),
        drawing_row("two dogs in a garden", picture(9), **small),
    ]


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    """See [`training_rows`]."""
    return training_rows()
