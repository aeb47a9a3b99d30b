"""Chats in auto mode, and the judge of their last answers."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from wallaroo_hf.scenes import Scene, SceneObject, render, render_row
from wallaroo_hf.scenes.chats import CHAT_TURNS, check_reply, make_chat
from wallaroo_hf.scenes.phrases import describe
from wallaroo_hf.scenes.splits import SPLITS, Combination, split_of
from wallaroo_hf.scenes.talk import TALK

ROWS = [make_chat(0, index) for index in range(300)]


def _answer(row):
    """The row's own answer, in pieces."""
    pictures = iter(render_row(row)["images"][len(row["shown"]) :])
    return [part["text"] if part["type"] == "text" else next(pictures) for part in row["messages"][-1]["content"]]


def test_equal_arguments_give_equal_rows():
    assert make_chat(0, 5) == ROWS[5] != make_chat(1, 5)
    assert {row["language"] for row in ROWS} == {"en", "zh"}
    for category in CHAT_TURNS:
        row = make_chat(0, 1, "test", category, "zh", (64, 128))
        assert (row["category"], row["language"], row["height"], row["width"]) == (category, "zh", 64, 128)


def test_every_kind_of_turn_ends_chats_of_every_length():
    counts = Counter((row["category"], len(row["messages"]) // 2) for row in ROWS)
    assert set(counts) == {(kind, length) for kind in CHAT_TURNS for length in (1, 2, 3, 4)}


def test_a_picture_stands_in_the_turn_after_the_one_that_drew_it():
    for row in ROWS:
        kinds = [[part["type"] for part in message["content"]] for message in row["messages"]]
        assert all("image" not in said for said in kinds[1:-1:2])
        shown = [number for number, asked in enumerate(kinds[::2]) if "image" in asked]
        assert len(shown) == len(row["shown"]) and all(asked[-1] == "text" for asked in kinds[::2])
        for scene, number in zip(row["shown"], shown):
            # what was drawn was described; the first picture may be one of the user's
            before = row["messages"][2 * number - 1]["content"][0]["text"] if number else ""
            assert before == describe(Scene.from_dict(scene), row["language"]) or number == min(shown)
        if row["scene"] is not None:
            assert row["scene"] == row["shown"][-1]


@pytest.mark.parametrize("split", SPLITS)
def test_the_own_answer_is_right(split):
    rows = ROWS if split == "train" else [make_chat(0, index, split, CHAT_TURNS[index % 4]) for index in range(80)]
    for row in rows:
        assert check_reply(row, _answer(row)), row


def test_nothing_held_out_is_said_or_drawn_in_training():
    for row in ROWS:
        found = {split_of(Combination(*one)) for kind in ("main", "others") for one in row["combinations"][kind]}
        assert found <= {"train"}
    for row in (make_chat(0, index, "test", "edit") for index in range(20)):
        main = {split_of(Combination(*one)) for one in row["combinations"]["main"]}
        assert "test" in main and "validation" not in main


def test_wrong_answers_are_found():
    for row in ROWS[:120]:
        own = _answer(row)
        if row["category"] == "talk":
            other = next(kind for kind in TALK if kind != row["spec"]["talk"])
            assert not check_reply(row, [TALK[other][row["language"]][1]])
            continue
        blank = render(Scene(row["height"], row["width"], "white"))
        if row["category"] == "question":
            assert not check_reply(row, [*own, blank]), "a drawing is no answer"
            assert not check_reply(row, ["I am glad that you like it!"])
            continue
        assert not check_reply(row, own[1:]) and not check_reply(row, [*own, blank])
        assert not check_reply(row, own[:1]), "the picture is not described"
        target = Scene.from_dict(row["target_scene"])
        free = target.free_slots()[0]
        more = dataclasses.replace(target, objects=(*target.objects, SceneObject(*free, "heart", "pink")))
        assert not check_reply(row, [render(more), describe(more, row["language"])]), "one object too many"
        assert not check_reply(row, [own[0], describe(more, row["language"])]), "the words say more"
