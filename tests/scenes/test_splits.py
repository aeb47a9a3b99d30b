"""Held-out combinations: nothing of a test row's is ever trained on, yet all its parts are."""

import collections
import itertools

import pytest

from wallaroo_hf.scenes import make_row
from wallaroo_hf.scenes.palette import COLOURS
from wallaroo_hf.scenes.shapes import SHAPES
from wallaroo_hf.scenes.splits import RELATIONS, SPLITS, Combination, admits, pair, split_of
from wallaroo_hf.scenes.tasks import CATEGORIES

CELLS = [(task, category) for task, categories in CATEGORIES.items() for category in categories]


def test_combinations_are_dealt_out_like_a_latin_square():
    for relation in RELATIONS:
        square = {
            (shape, colour): split_of(Combination(shape, colour, relation)) for shape in SHAPES for colour in COLOURS
        }
        assert collections.Counter(square.values()) == {"train": 48, "validation": 8, "test": 8}
        for split in ("validation", "test"):
            held_out = [kind for kind, belongs in square.items() if belongs == split]
            assert {shape for shape, _ in held_out} == set(SHAPES)  # so each shape loses one colour, and
            assert {colour for _, colour in held_out} == set(COLOURS)  # each colour one shape


def test_what_is_held_out_differs_between_relations():
    held_out = collections.Counter(
        (shape, colour)
        for shape, colour, relation in itertools.product(SHAPES, COLOURS, RELATIONS)
        if split_of(Combination(shape, colour, relation)) == "test"
    )
    assert len(held_out) == 64 and max(held_out.values()) < len(RELATIONS) / 4


def test_a_pair_is_named_in_one_way():
    assert pair("star", "circle") == pair("circle", "star")
    assert pair("star", "circle", "left_of") == pair("circle", "star", "right_of")
    assert pair("star", "circle", "below") == pair("circle", "star", "above")
    assert pair("star", "circle", "above") != pair("circle", "star", "above")


def test_admission():
    combinations = [Combination(shape, "red", "alone") for shape in SHAPES]
    by_split = {split: [one for one in combinations if split_of(one) == split] for split in SPLITS}
    train, validation, test = (by_split[split][0] for split in SPLITS)
    assert admits("train", [train]) and admits("validation", [validation]) and admits("test", [test, train])
    assert not admits("train", [train], [test]) and not admits("train", [validation])
    assert not admits("test", [train]) and not admits("test", [test], [validation])
    assert not admits("test", [train], [test])  # it must be what the row is about


@pytest.mark.parametrize(("task", "category"), CELLS)
def test_rows_keep_to_their_split(task, category):
    for split in SPLITS:
        for index in range(12):
            row = make_row(0, index, split, task, category)
            main, others = ([Combination(*one) for one in row["combinations"][key]] for key in ("main", "others"))
            splits = {split_of(one) for one in main + others}
            if split == "train":
                assert splits == {"train"}
            else:
                assert split in {split_of(one) for one in main}
                assert splits <= {split, "train"}


def _drawn(row):
    """What a generation row draws, as (shape, colour, relation) told from the picture and the words alone."""
    objects = row["target_scene"]["objects"]
    kinds = [(thing["shape"], thing["colour"]) for thing in objects]
    if row["category"] == "position" and len(kinds) == 1:
        return {(*kinds[0], "placed")}
    if len(kinds) == 1:
        return {(*kinds[0], "alone")}
    if row["category"] == "position":
        return set()
    counts = collections.Counter(kinds)
    return {(*kind, f"counted_{count}" if count > 1 else "with_other") for kind, count in counts.items()}


def test_no_training_picture_shows_what_test_prompts_ask_for():
    trained = set()
    for index in range(2500):
        trained |= _drawn(make_row(0, index, "train", "generation"))
    for category in ("colours", "colour_attribution", "counting"):
        for index in range(40):
            row = make_row(0, index, "test", "generation", category)
            assert _drawn(row) - trained  # at least one that was never drawn
    assert len({(shape, colour) for shape, colour, _ in trained}) == 64
    assert {relation for *_, relation in trained} == {
        "alone",
        "placed",
        "with_other",
        *(f"counted_{n}" for n in (2, 3, 4)),
    }


def test_every_pair_of_shape_and_colour_is_trained_in_every_kind_of_question_and_edit():
    for task in ("understanding", "editing"):
        for category in CATEGORIES[task]:
            seen = set()
            for index in range(400):
                seen |= {tuple(one[:2]) for one in make_row(0, index, "train", task, category)["combinations"]["main"]}
            seen = {kind for kind in seen if kind[1] in COLOURS}
            assert len(seen) == 48  # all but the two folds
            assert {shape for shape, _ in seen} == set(SHAPES) and {colour for _, colour in seen} == set(COLOURS)
