"""Conversations: several questions about one picture."""

from __future__ import annotations

from collections import Counter

from wallaroo_hf.scenes.conversations import make_conversation
from wallaroo_hf.scenes.scene import Scene
from wallaroo_hf.scenes.splits import QUESTIONS, Combination, split_of
from wallaroo_hf.scenes.verify import check_answer
from wallaroo_hf.scenes.words import PLACE_WORDS
from wallaroo_hf.training.scenes.scenes_data import Conversations

PLACES = {names[0] for words in PLACE_WORDS.values() for names in words.values()}
ROWS = [make_conversation(0, index) for index in range(400)]


def test_equal_arguments_give_equal_rows():
    assert make_conversation(0, 5) == ROWS[5] != make_conversation(1, 5)
    assert len(make_conversation(0, 5, num_questions=2)["messages"]) <= 4


def test_turns_alternate_and_only_the_first_shows_the_picture():
    for row in ROWS:
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"] * (len(row["messages"]) // 2)
        kinds = [part["type"] for message in row["messages"] for part in message["content"]]
        assert kinds[0] == "image" and "image" not in kinds[1:]
    lengths = Counter(len(row["messages"]) // 2 for row in ROWS)
    assert max(lengths) == 4 and lengths[4] > 320
    assert {row["language"] for row in ROWS} == {"en", "zh"}
    assert {row["category"] for row in ROWS} == set(QUESTIONS)


def test_the_last_answer_is_right():
    """The specification that the row carries accepts what the assistant says last."""
    for row in ROWS:
        said = row["messages"][-1]["content"][0]["text"]
        assert check_answer(said, row["spec"]), row


def test_nothing_is_asked_twice():
    """An answer that stands above would be copied, not found in the picture."""
    weights = {"where": 20.0}
    for row in (make_conversation(0, index, weights=weights) for index in range(200)):
        answers = [message["content"][0]["text"] for message in row["messages"][1::2]]
        objects = row["scene"]["objects"]
        if len(objects) == 1:  # its place, its colour, its shape ...: no place of one object comes twice
            places = [text for text in answers if text in PLACES]
            assert len(places) == len(set(places)), row


def test_nothing_held_out_is_asked_about():
    for row in ROWS:
        assert row["combinations"]["main"]
        assert all(split_of(Combination(*combination)) == "train" for combination in row["combinations"]["main"])


def test_training_rows_bring_one_picture_of_the_scene():
    rows = Conversations(3, 4, seed=0)
    assert len(rows) == 3
    for index in range(3):
        scene = Scene.from_dict(ROWS[index]["scene"])
        assert [image.size for image in rows[index]["images"]] == [(scene.width, scene.height)]
        assert rows[index]["messages"] == ROWS[index]["messages"]
