"""Answers are judged by what they say, not by how."""

import collections
import random

import pytest

from wallaroo_hf.scenes import AnswerSpec, ObjectSpec, check_answer, make_row
from wallaroo_hf.scenes.answer_values import listing
from wallaroo_hf.scenes.geometry import CELLS, DIRECTIONS
from wallaroo_hf.scenes.palette import BACKGROUNDS, COLOURS
from wallaroo_hf.scenes.questions import answer
from wallaroo_hf.scenes.scene import Scene
from wallaroo_hf.scenes.shapes import SHAPES

ROWS = [make_row(3, index, ("train", "test")[index % 2], "understanding") for index in range(600)]


def _said(row):
    return row["messages"][-1]["content"][0]["text"]


def test_right_answers_are_accepted():
    assert all(check_answer(_said(row), row["spec"]) for row in ROWS)
    assert all(check_answer(f"  {_said(row).upper()} !", row["spec"]) for row in ROWS)


def _wrong(rng, spec):
    """The same question with another answer, one thing changed."""
    if spec["kind"] == "objects":
        objects = [dict(thing) for thing in spec["objects"]]
        thing = rng.choice(objects)
        change = rng.choice(
            ["shape", "colour", "count", "fewer", "more", *(["background"] if "background" in spec else [])]
        )
        if change == "background":
            return change, {**spec, "background": _other(rng, BACKGROUNDS, spec["background"])}
        if change == "fewer":
            objects.remove(thing)
            return (change, {**spec, "objects": objects}) if objects else None
        if change == "more":
            objects.append({"shape": rng.choice(SHAPES), "colour": rng.choice(COLOURS), "count": 1})
        elif change == "count":
            thing["count"] += 1
        else:
            thing[change] = _other(rng, SHAPES if change == "shape" else COLOURS, thing[change])
        return change, {**spec, "objects": objects}
    choices = {
        "shape": SHAPES,
        "colour": COLOURS + BACKGROUNDS,
        "place": CELLS,
        "direction": DIRECTIONS,
        "number": range(5),
    }.get(spec["kind"], ("yes", "no"))
    return spec["kind"], {**spec, "value": _other(rng, choices, spec["value"])}


def _other(rng, names, name):
    return rng.choice([one for one in names if one != name])


def test_wrong_answers_are_refused():
    rng = random.Random(0)
    judged = collections.Counter()
    for row in ROWS * 2:
        wrong = _wrong(rng, row["spec"])
        if wrong is None:
            continue
        kind, spec = wrong
        said = answer(AnswerSpec.from_dict(spec), Scene(96, 96, "white"), row["language"])
        if spec["kind"] == "objects" and "background" in spec:
            said = _list(spec, row["language"])
        judged[kind] += 1
        verdict = check_answer(said, row["spec"])
        assert not verdict and said in verdict.reason, (said, row["spec"])
    assert set(judged) == {
        "shape", "colour", "place", "direction", "number", "yes_no", "exists", "count", "fewer", "more", "background",
    }  # fmt: skip


def _list(spec, language):
    """A description in another form than the data set's."""
    objects = AnswerSpec.from_dict({**spec, "background": None})
    listed = answer(objects, Scene(96, 96, "white"), language)
    colour = answer(AnswerSpec("colour", spec["background"]), Scene(96, 96, "white"), language)
    return f"I see {listed}. The background is {colour}." if language == "en" else f"图中有{listed}，背景是{colour}"


def test_descriptions_may_be_worded_otherwise():
    rows = [row for row in ROWS if row["category"] == "describe"]
    assert rows and all(check_answer(_list(row["spec"], row["language"]), row["spec"]) for row in rows)


@pytest.mark.parametrize(
    ("kind", "value", "right", "wrong"),
    [
        (
            "colour",
            "grey",
            "grey|Gray.|It is grey|the background is gray|灰色|灰色的|是灰色",
            "white|红色|grey or red",
        ),
        ("colour", "pink", "pink|粉色|粉红色|粉红", "红色|red|dark pink|"),
        ("shape", "cross", "a cross|plus sign|it's a plus|十字|一个十字形", "a star|cross star|圆形"),
        ("shape", "ring", "a ring|donut|圆环|环形", "圆|圆形|circle"),
        ("number", 3, "three|3|There are 3.|there are three red circles|三个|3个|有三个", "two|两个|three or four"),
        ("number", 0, "zero|none|There are no circles|零个|没有", "one|一个"),
        ("number", 2, "two|两个|二", "十二|12"),
        (
            "place",
            "top_left",
            "top left|in the upper left corner|左上角|在左上方|左上",
            "top|left|bottom left|上方中间",
        ),
        ("place", "centre", "centre|center|in the middle|正中间|中间|中心", "top middle|middle left|左侧中间"),
        ("place", "middle_right", "middle right|on the right in the middle|右侧中间", "right|centre|右边"),
        (
            "direction",
            "left_of",
            "to the left|left|It is to the left of the blue star|左边|在左侧",
            "right|above|右边",
        ),
        ("direction", "above", "above|over|on top|上方|上面", "below|下方"),
        ("yes_no", "yes", "yes|Yes, it is|是|是的|对", "no|不是|it is not|maybe"),
        ("exists", "no", "no|No, there is not|没有|没有。|不是", "yes|有|是的"),
    ],
)
def test_synonyms(kind, value, right, wrong):
    spec = {"kind": kind, "value": value}
    for said in right.split("|"):
        assert check_answer(said, spec), said
    for said in wrong.split("|"):
        assert not check_answer(said, spec), said


@pytest.mark.parametrize(
    ("spec", "denials"),
    [
        (
            {"kind": "colour", "value": "red"},
            "not red|It is not red.|no red|none of it is red|false, red|不是红色|没有红色",
        ),
        ({"kind": "shape", "value": "circle"}, "not a circle|no circle|不是圆形|没有圆形"),
        ({"kind": "place", "value": "centre"}, "not in the centre|不在中间"),
        ({"kind": "direction", "value": "left_of"}, "not on the left|It is not to the left|不在左边"),
        ({"kind": "number", "value": 2}, "not two|There are not 2|不是两个"),
        (
            {"kind": "objects", "objects": [{"shape": "circle", "colour": "red"}]},
            "there is not a red circle|there is no red circle|不是红色的圆形|没有红色的圆形",
        ),
    ],
)
def test_denials_are_no_answers(spec, denials):
    for said in denials.split("|"):
        assert not check_answer(said, spec), said


def test_none_of_a_thing_is_a_number_of_it():
    spec = AnswerSpec("objects", objects=(ObjectSpec("circle", "red"),))
    assert check_answer("a red circle and no stars", spec) and check_answer("一个红色的圆形，没有星星", spec)
    assert check_answer("there are no circles", {"kind": "number", "value": 0})


def test_lists():
    spec = AnswerSpec("objects", objects=(ObjectSpec("circle", "red", 2), ObjectSpec("star", "blue")))
    for said in (
        "two red circles and a blue star", "A blue star, 2 red circles.", "a red circle, a red circle and a blue star",
        "there are two red discs and one blue star in the picture", "两个红色的圆形和一个蓝色的星星",
        "一颗蓝色五角星、2个红圆",
    ):  # fmt: skip
        assert check_answer(said, spec), said
    for said in (
        "two red circles", "two red circles and a star", "two circles and a blue star", "a red circle and a blue star",
        "two red circles, a blue star and a ring", "two blue circles and a red star", "two red circles and a blue dog", "",
        "two red circles and a blue", "red two circles and a blue star",
    ):  # fmt: skip
        assert not check_answer(said, spec), said
    assert listing("a star on a white background").backgrounds == {"white"}
    assert listing("背景是白色，有一个红色的圆形").backgrounds == {"white"}
    assert listing("a red circle on a blue background").objects == {("circle", "red"): 1}


def test_the_language_is_judged_where_it_is_asked_for():
    spec = {"kind": "colour", "value": "red", "language": "zh"}
    assert check_answer("红色", spec) and not check_answer("red", spec)
    assert "not in the language 'zh'" in check_answer("red", spec).reason
    assert check_answer("3", {"kind": "number", "value": 3, "language": "zh"})
