"""What a row is, and what is wrong with those that are not."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import picture
from wallaroo_hf.training.data.row_parts import only_draws, take_apart
from wallaroo_hf.training.data.training_rows import REASONS, RowError, check_row, picture_roles, row_name, row_task

IMAGE = {"type": "image"}


def text(words):
    return {"type": "text", "text": words}


def row(user, answer, images=(), **more):
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "images": list(images), **more}


def says(words):
    return {"role": "assistant", "content": words}


GENERATION = row("a cat", [IMAGE], [b"cat"])
EDITING = row([IMAGE, text("make it blue")], [IMAGE], [b"cat", b"blue cat"])
UNDERSTANDING = row([IMAGE, text("what?")], "a cat", [b"cat"])


@pytest.mark.parametrize(
    ("given", "task"),
    [
        (UNDERSTANDING, "understanding"),
        (row("hello", "hi"), "understanding"),
        (GENERATION, "generation"),
        (EDITING, "editing"),
        (row("a cat", [text("here:"), IMAGE], [b"cat"]), "interleaved"),
        (row("two cats", [IMAGE, IMAGE], [b"cat", b"cat"]), "interleaved"),
        (row([IMAGE, IMAGE, text("join")], [IMAGE], [b"cat"] * 3), "interleaved"),
    ],
)
def test_the_task_is_read_off_the_messages(given, task):
    assert row_task(given) == task
    assert row_task({**given, "task": task, "height": None}) == task
    with pytest.raises(RowError, match="declared") as error:
        row_task({**given, "task": "generation" if task != "generation" else "editing"})
    assert error.value.reason == "wrong_task"


def test_turns_before_the_drawing_count():
    """An edit shows its one image in the request; words may have gone before, other images make it a chat."""
    words = [{"role": "system", "content": "Draw."}, {"role": "user", "content": "hi"}, says("hello")]
    assert row_task({"messages": words + EDITING["messages"]}) == "editing"
    assert row_task({"messages": words + GENERATION["messages"]}) == "generation"
    later = [{"role": "user", "content": "make it blue"}, EDITING["messages"][1]]
    for chat in (
        UNDERSTANDING["messages"] + later,
        UNDERSTANDING["messages"] + EDITING["messages"],
        GENERATION["messages"] + UNDERSTANDING["messages"],
        GENERATION["messages"] + later,
        [*GENERATION["messages"], says("done")],
        [GENERATION["messages"][0], says("gladly"), GENERATION["messages"][1]],
    ):
        assert row_task({"messages": chat}) == "interleaved"
    assert picture_roles(EDITING) == ["user", "assistant"]
    assert row_task({**EDITING, "task": "interleaved"}) == "interleaved"  # laid out as a chat, by wish


@pytest.mark.parametrize("more", [{}, {"task": "interleaved"}])
def test_the_collator_goes_by_the_task(more):
    """It lays out as one drawing what is called generation or editing, and as a chat what is interleaved."""
    words = [{"role": "user", "content": "hi"}, says("hello")]
    for given in (GENERATION, EDITING, UNDERSTANDING, row([IMAGE, IMAGE, text("join")], [IMAGE], [b""] * 3)):
        for before in ([], words, UNDERSTANDING["messages"], GENERATION["messages"]):
            whole = {"messages": before + given["messages"], **more}
            whole["images"] = [picture(1)] * len(picture_roles(whole))
            drawn = only_draws(take_apart(whole)) and not more
            assert (row_task(whole) in ("generation", "editing")) == drawn


def test_names():
    assert row_name({"name": "t.jsonl:3"}, 7) == "t.jsonl:3" and row_name({}, 7) == "row 7"


def test_good_rows_pass():
    tokens, latents = np.zeros((3, 4), int), np.zeros((3, 4, 8))
    for good in (
        UNDERSTANDING,
        GENERATION,
        EDITING,
        {**GENERATION, "height": 48, "width": np.int64(64)},
        {**GENERATION, "images": [None], "image_tokens": [tokens], "height": 48, "width": 64},
        {**EDITING, "images": [b"cat", None], "image_tokens": [tokens.tolist()], "source_latents": [latents]},
        row([text("hi")], "yes", images=[], system=None),
    ):
        assert check_row(good) == row_task(good)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"error": "It is not JSON.", "name": "x"}, "unreadable_row"),
        ({"messages": []}, "wrong_messages"),
        ({}, "wrong_messages"),
        ({"messages": [{"role": "human", "content": "hi"}]}, "wrong_messages"),
        ({"messages": [*UNDERSTANDING["messages"], {"role": "system", "content": "late"}]}, "wrong_messages"),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, "wrong_messages"),
        (row(7, "x"), "wrong_content"),
        (row([{"type": "video"}], "x"), "video_count"),
        (row("hi", [{"type": "video"}]), "wrong_content"),
        (row([{"type": "text"}], "x"), "wrong_content"),
        (row(["words"], "x"), "wrong_content"),
        (row("half a pair: \ud800", "x"), "wrong_content"),
        (row(" ", "x"), "wrong_content"),
        ({"messages": [{"role": "system", "content": [IMAGE]}, *GENERATION["messages"]]}, "wrong_content"),
        (row("hi", ""), "no_answer"),
        ({"messages": GENERATION["messages"][:1]}, "no_answer"),
        ({**GENERATION, "images": []}, "image_count"),
        ({**GENERATION, "images": [b"", b""]}, "image_count"),
        ({"messages": GENERATION["messages"]}, "image_count"),
        ({**GENERATION, "height": 48}, "wrong_size"),
        ({**GENERATION, "height": 50, "width": 64}, "wrong_size"),
        ({**GENERATION, "height": 48.0, "width": 64}, "wrong_size"),
        ({**GENERATION, "images": [None]}, "missing_image"),
        ({**EDITING, "images": [None, None], "image_tokens": [np.zeros((3, 4))]}, "missing_image"),
        ({**GENERATION, "image_tokens": [np.zeros(12)]}, "wrong_encoding"),
        ({**GENERATION, "image_tokens": []}, "wrong_encoding"),
        ({**GENERATION, "image_tokens": [np.zeros((3, 4))], "height": 64, "width": 48}, "wrong_encoding"),
        ({**UNDERSTANDING, "source_latents": [np.zeros((3, 4, 8))]}, "wrong_encoding"),
    ],
)
def test_bad_rows_say_why(bad, reason):
    with pytest.raises(RowError) as error:
        check_row(bad)
    assert error.value.reason == reason in REASONS
    assert str(error.value).endswith(".")


def test_only_some_tasks_may_be_wanted():
    with pytest.raises(RowError, match="only generation, editing are trained") as error:
        check_row(UNDERSTANDING, ("generation", "editing"))
    assert error.value.reason == "unsupported_task"
