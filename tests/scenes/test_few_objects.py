"""Small pictures of one or two objects."""

import pytest

from wallaroo_hf.scenes import Prompt, Scene, render
from wallaroo_hf.scenes.captions import CAPTION_CATEGORIES
from wallaroo_hf.scenes.few_objects import make_few_row
from wallaroo_hf.scenes.splits import Combination, admits


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_rows_are_of_their_split_and_judged_right(split):
    for index in range(36):
        category = CAPTION_CATEGORIES[index % 6]
        row = make_few_row(3, index, split, category, "en" if index % 2 else "zh")
        scene = Scene.from_dict(row["target_scene"])
        assert (scene.height, scene.width) == (64, 64) and 1 <= len(scene.objects) <= 2
        assert row["category"] == category and row["language"] == ("en" if index % 2 else "zh")
        main, others = ([Combination(*one) for one in row["combinations"][kind]] for kind in ("main", "others"))
        assert admits(split, main, others)
        assert Prompt.from_dict(row).judge(render(scene))


def test_equal_arguments_give_equal_rows():
    assert make_few_row(0, 5, "train") == make_few_row(0, 5, "train") != make_few_row(0, 6, "train")
    assert {make_few_row(0, index, "train")["language"] for index in range(20)} == {"en", "zh"}
    assert {make_few_row(0, index, "train")["category"] for index in range(60)} == set(CAPTION_CATEGORIES)


def test_unknown_names_are_refused():
    for arguments, message in (
        (("all",), "unknown split 'all'"),
        (("train", "crowd"), "unknown category 'crowd'"),
        (("train", None, "fr"), "unknown language 'fr'"),
        ((None,), "unknown split None"),
    ):
        with pytest.raises(ValueError, match=message):
            make_few_row(0, 0, *arguments)
