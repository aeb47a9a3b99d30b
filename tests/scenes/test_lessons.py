"""Lessons: small crowded pictures to draw."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter

import pytest

from wallaroo_hf.scenes import render
from wallaroo_hf.scenes.chats import check_reply
from wallaroo_hf.scenes.geometry import is_at
from wallaroo_hf.scenes.lessons import (
    SIZE,
    make_chat_lesson,
    make_destination_lesson,
    make_edit_lesson,
    make_hard_edit_lesson,
    make_large_edit_lesson,
    make_large_lesson,
    make_lesson,
    make_place_lesson,
    make_position_lesson,
    make_selection_lesson,
    make_two_step_lesson,
)
from wallaroo_hf.scenes.phrases import describe
from wallaroo_hf.scenes.scene import SIZES, Scene
from wallaroo_hf.scenes.specs import EditSpec
from wallaroo_hf.scenes.splits import OPERATIONS, Combination, split_of
from wallaroo_hf.scenes.verify import check_caption, check_edit
from wallaroo_hf.training.scenes.scenes_data import Conversations, Lessons

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


def test_large_lessons_ask_for_what_is_hard():
    rows = [make_large_lesson(0, index) for index in range(200)]
    assert rows[3] == make_large_lesson(0, 3) != make_large_lesson(1, 3)
    counts = Counter(row["category"] for row in rows)
    assert min(counts["crowd"], counts["position"], counts["counting"]) > 25 and len(counts) == 7
    assert {(row["target_scene"]["height"], row["target_scene"]["width"]) for row in rows} == set(SIZES)
    for row in rows:
        assert check_caption(render(Scene.from_dict(row["target_scene"])), row["spec"]), row
        found = [Combination(*one) for kind in ("main", "others") for one in row["combinations"][kind]]
        assert found and all(split_of(combination) == "train" for combination in found)


def test_small_edits_are_done_as_said():
    rows = [make_edit_lesson(0, index) for index in range(120)]
    assert rows[7] == make_edit_lesson(0, 7) and {row["category"] for row in rows} == set(OPERATIONS)
    for row in rows:
        source, target = (Scene.from_dict(row[key]) for key in ("scene", "target_scene"))
        assert (source.height, source.width) == SIZE and source != target
        assert check_edit(source, render(target), row["spec"]), row
        assert not check_edit(source, render(source), row["spec"]), row
        assert all(split_of(Combination(*one)) == "train" for one in row["combinations"]["main"])


def test_training_rows_say_their_size():
    for name, pictures in (("lessons", 1), ("edit_lessons", 2)):
        row = Lessons(name, 3, seed=0)[2]
        assert (row["height"], row["width"]) == SIZE
        assert [image.size for image in row["images"]] == [SIZE] * pictures
    large = Lessons("large_lessons", 20, seed=0)
    assert all((row["width"], row["height"]) == row["images"][0].size for row in large)
    assert Lessons("lessons", 3, seed=0)[2]["messages"] == ROWS[2]["messages"]


def test_rows_come_to_an_end():
    assert len(list(Lessons("lessons", 3))) == 3 and len(list(Conversations(2, 4))) == 2
    with pytest.raises(IndexError):
        Lessons("lessons", 3)[3]
    assert Lessons("lessons", 3)[-1]["messages"] == Lessons("lessons", 3)[2]["messages"]


def test_position_lessons_are_mostly_about_positions():
    rows = [make_position_lesson(0, index) for index in range(200)]
    assert rows[3] == make_position_lesson(0, 3) != make_position_lesson(1, 3)
    counts = Counter(row["category"] for row in rows)
    assert counts["position"] > 120 and set(counts) == {"position", "counting", "crowd"}
    assert {(row["target_scene"]["height"], row["target_scene"]["width"]) for row in rows} == {SIZE, *SIZES}
    for row in rows:
        assert check_caption(render(Scene.from_dict(row["target_scene"])), row["spec"]), row
        found = [Combination(*one) for kind in ("main", "others") for one in row["combinations"][kind]]
        assert found and all(split_of(combination) == "train" for combination in found)


def test_large_edits_are_crowded_and_done_as_said():
    rows = [make_large_edit_lesson(0, index) for index in range(120)]
    assert rows[7] == make_large_edit_lesson(0, 7) and {row["category"] for row in rows} == set(OPERATIONS)
    counts = Counter(len(row["scene"]["objects"]) for row in rows)
    assert max(counts) == 6 and counts[5] + counts[6] > 20
    for row in rows:
        source, target = (Scene.from_dict(row[key]) for key in ("scene", "target_scene"))
        assert (source.height, source.width) in SIZES and len(target.objects) <= 6
        assert check_edit(source, render(target), row["spec"]), row
        assert all(split_of(Combination(*one)) == "train" for one in row["combinations"]["main"])


def test_selection_lessons_have_something_to_choose_from():
    rows = [make_selection_lesson(0, index) for index in range(120)]
    assert rows[7] == make_selection_lesson(0, 7) != make_selection_lesson(1, 7)
    assert {len(row["scene"]["objects"]) for row in rows} == {2, 3, 4}
    counts = Counter(row["category"] for row in rows)
    assert min(counts["recolour"], counts["replace"]) > 30 and set(counts) == set(OPERATIONS) - {"background"}
    reworded = [
        row for row in rows if row["category"] == "recolour" and re.search("remove|去掉|移除|删除", row["prompt"])
    ]
    assert 5 < len(reworded) < 25 and {row["language"] for row in reworded} == {"en", "zh"}
    for row in rows:
        source, target = (Scene.from_dict(row[key]) for key in ("scene", "target_scene"))
        assert (source.height, source.width) in SIZES
        assert check_edit(source, render(target), row["spec"]), row
        assert all(split_of(Combination(*one)) == "train" for one in row["combinations"]["main"])


def test_place_lessons_say_where_every_object_is():
    rows = [make_place_lesson(0, index) for index in range(120)]
    assert rows[3] == make_place_lesson(0, 3) != make_place_lesson(1, 3)
    assert {len(row["spec"]["objects"]) for row in rows} == {1, 2, 3, 4}
    for row in rows:
        target = Scene.from_dict(row["target_scene"])
        assert all("place" in thing for thing in row["spec"]["objects"])
        assert check_caption(render(target), row["spec"]), row
        mirrored = [dataclasses.replace(thing, col=target.cols - 1 - thing.col) for thing in target.objects]
        moved = dataclasses.replace(target, objects=tuple(mirrored))
        centred = all(thing["place"] in ("top_middle", "centre", "bottom_middle") for thing in row["spec"]["objects"])
        assert bool(check_caption(render(moved), row["spec"])) == centred, row
        found = [Combination(*one) for kind in ("main", "others") for one in row["combinations"][kind]]
        assert found and all(split_of(combination) == "train" for combination in found)


def test_two_step_lessons_show_changes_that_are_held_out_in_their_usual_words():
    rows = [make_two_step_lesson(0, index) for index in range(400)]
    assert rows[7] == make_two_step_lesson(0, 7) != make_two_step_lesson(1, 7)
    held_out = Counter()
    for row in rows:
        source, target = (Scene.from_dict(row[key]) for key in ("scene", "target_scene"))
        assert check_edit(source, render(target), row["spec"]), row
        main = [Combination(*one) for one in row["combinations"]["main"]]
        assert all(split_of(combination) == "train" for combination in main)
        new = next(thing for thing in target.objects if thing not in source.objects)
        is_replacement = len(main) == 1
        assert {one.relation for one in main} == ({"replace"} if is_replacement else {"add", "remove"})
        says_removal = re.search("remove|去掉|删除", row["prompt"], re.IGNORECASE)
        assert bool(says_removal) != is_replacement, row["prompt"]
        usual = Combination(new.shape, new.colour, row["category"])
        held_out[row["category"]] += split_of(usual) != "train"
    assert min(held_out[name] for name in ("recolour", "replace", "move")) > 10


def test_hard_edits_are_mostly_moves_and_replacements_among_several_objects():
    rows = [make_hard_edit_lesson(0, index) for index in range(200)]
    assert rows[7] == make_hard_edit_lesson(0, 7) != make_hard_edit_lesson(1, 7)
    counts = Counter(row["category"] for row in rows)
    assert counts["move"] > counts["replace"] > counts["add"] and "background" not in counts
    for row in rows:
        assert 2 <= len(row["scene"]["objects"]) <= 4
        assert check_edit(row["scene"], render(Scene.from_dict(row["target_scene"])), row["spec"]), row
        assert all(split_of(Combination(*one)) == "train" for one in row["combinations"]["main"])


def test_destinations_are_the_first_places_that_fit():
    rows = [make_destination_lesson(0, index) for index in range(80)]
    assert rows[5] == make_destination_lesson(0, 5) != make_destination_lesson(1, 5)
    for row in rows:
        source, target = Scene.from_dict(row["scene"]), Scene.from_dict(row["target_scene"])
        new = next(thing for thing in target.objects if thing not in source.objects)
        spec = EditSpec.from_dict(row["spec"])
        assert row["category"] in ("move", "add") and max(len(source.objects), len(target.objects)) <= 2
        assert check_edit(row["scene"], render(target), row["spec"])
        if spec.place is not None:
            grid = (source.rows, source.cols)
            fitting = [slot for slot in source.free_slots() if is_at(spec.place, slot, grid)]
            assert (new.row, new.col) == fitting[0]
    assert sum(row["spec"].get("place") is not None for row in rows) > 40


def test_chat_lessons_end_behind_a_picture():
    rows = [make_chat_lesson(0, index) for index in range(40)]
    assert rows[5] == make_chat_lesson(0, 5) != make_chat_lesson(1, 5)
    assert {row["category"] for row in rows} == {"edit", "draw"} and all(row["shown"] for row in rows)
    for row in rows:
        target = Scene.from_dict(row["target_scene"])
        assert check_reply(row, [render(target), describe(target, row["language"])])
