"""Edits of two pictures, and their judge."""

from __future__ import annotations

import pytest

from wallaroo_hf.scenes import Scene, check_edit, make_composition, make_row, render_row
from wallaroo_hf.scenes.compositions import COMPOSITIONS
from wallaroo_hf.scenes.splits import Combination, split_of


@pytest.mark.parametrize("category", list(COMPOSITIONS))
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_target_is_right_and_the_source_is_not(category, split):
    for index in range(12):
        row = make_composition(3, index, split, category)
        assert row == make_composition(3, index, split, category)
        first, second, target = render_row(row)["images"]
        assert first.size == second.size == target.size
        assert check_edit(row["scene"], target, row["spec"])
        assert not check_edit(row["scene"], second, row["spec"])
        about = {split_of(Combination(*one)) for one in row["combinations"]["main"]}
        assert about == {"train"} if split == "train" else split in about


def test_what_is_taken_is_shown_and_not_said():
    """The first picture alone tells it, and its thing can be named in one way."""
    words = {"red", "green", "blue", "yellow", "orange", "purple", "pink", "cyan", "violet", "turquoise"}
    for index in range(60):
        row = make_composition(5, index, "train", language="en")
        reference, spec, said = Scene.from_dict(row["shown"][0]), row["spec"], set(row["prompt"].lower().split())
        assert row["shown"][1] == row["scene"] and said & {"first", "first."}
        if row["category"] == "background":
            assert reference.background == spec["background"] and spec["background"] not in said
        elif row["category"] == "object":
            (thing,) = [one for one in reference.objects if one.shape == spec["shape"]]
            assert thing.colour == spec["colour"] and not said & words
        elif row["category"] == "colour":
            assert spec["colour"] in {one.colour for one in reference.objects} and spec["colour"] not in said
        else:
            assert spec["shape"] in {one.shape for one in reference.objects} and spec["shape"] not in said
            assert spec.get("colour") is None


def test_changing_the_first_picture_changes_what_is_right():
    """Nobody can do it without looking there."""
    rows = [make_composition(1, index, "train", "background", size=(64, 64)) for index in range(30)]
    assert len({row["spec"]["background"] for row in rows}) == 4
    row = rows[0]
    other = next(
        one for one in rows if one["spec"] != row["spec"] and one["scene"]["background"] == row["scene"]["background"]
    )
    assert not check_edit(
        row["scene"], render_row({**row, "target_scene": other["target_scene"]})["images"][-1], row["spec"]
    )


@pytest.mark.parametrize("given", [{"split": "exam"}, {"category": "size"}, {"language": "fr"}])
def test_unknown_names(given):
    with pytest.raises(ValueError, match="unknown"):
        make_composition(0, 0, **given)


def test_they_are_no_part_of_the_data_set():
    with pytest.raises(ValueError, match="unknown task"):
        make_row(0, 0, task="composition")
