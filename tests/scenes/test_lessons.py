"""Lessons: small crowded pictures to draw."""

from __future__ import annotations

from collections import Counter

from wallaroo_hf.scenes import render
from wallaroo_hf.scenes.lessons import SIZE, make_lesson
from wallaroo_hf.scenes.scene import Scene
from wallaroo_hf.scenes.splits import Combination, split_of
from wallaroo_hf.scenes.verify import check_caption
from wallaroo_hf.training.scenes_data import Lessons

ROWS = [make_lesson(0, index) for index in range(200)]


def test_equal_arguments_give_equal_rows():
    assert make_lesson(0, 5) == ROWS[5] != make_lesson(1, 5)
    assert len({row["prompt"] for row in ROWS}) > 190
    assert {row["language"] for row in ROWS} == {"en", "zh"}


def test_pictures_are_small_crowded_and_what_captions_say():
    counts = Counter(len(row["target_scene"]["objects"]) for row in ROWS)
    assert counts[4] > 50 and set(counts) == {1, 2, 3, 4}
    for row in ROWS:
        scene = Scene.from_dict(row["target_scene"])
        assert (scene.height, scene.width) == SIZE
        assert check_caption(render(scene), row["spec"]), row


def test_what_is_named_first_is_seen_first():
    crowds = [row for row in ROWS if row["category"] == "crowd"]
    assert len(crowds) > 80
    for row in crowds:
        named = [(thing["shape"], thing["colour"]) for thing in row["spec"]["objects"]]
        assert named == [(thing["shape"], thing["colour"]) for thing in row["target_scene"]["objects"]]


def test_nothing_held_out_is_drawn():
    for row in ROWS:
        found = [Combination(*one) for kind in ("main", "others") for one in row["combinations"][kind]]
        assert found and all(split_of(combination) == "train" for combination in found)


def test_training_rows_say_their_size():
    row = Lessons(3, seed=0)[2]
    assert (row["height"], row["width"]) == SIZE and row["messages"] == ROWS[2]["messages"]
    assert [image.size for image in row["images"]] == [SIZE]
