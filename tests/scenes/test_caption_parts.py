"""Which parts of a caption a picture shows."""

import pytest
from PIL import Image

from wallaroo_hf.scenes import CaptionSpec, ObjectSpec, Scene, SceneObject, render
from wallaroo_hf.scenes.caption_parts import PARTS, judge_parts

RED_STAR, RED_RING = SceneObject(0, 0, "star", "red"), SceneObject(1, 1, "ring", "red")
PICTURE = render(Scene(64, 64, "grey", (RED_STAR, RED_RING)))


def _judged(*objects, background=None, picture=PICTURE):
    return judge_parts(picture, CaptionSpec(objects, background=background))


def test_each_part_for_itself():
    assert tuple(_judged(ObjectSpec("star"), ObjectSpec("ring"))) == PARTS
    assert _judged(ObjectSpec("star", "red"), ObjectSpec("ring", "red"), background="grey") == dict.fromkeys(
        PARTS, True
    )
    assert _judged(ObjectSpec("star", "red"), background="white") == {
        **{"background": False, "count": False, "shape": True, "colour": True},
    }
    assert _judged(ObjectSpec("star", "blue"), ObjectSpec("heart", "red")) == {
        **{"background": True, "count": True, "shape": False, "colour": False},
    }


def test_what_is_named_twice_must_be_there_twice():
    assert _judged(ObjectSpec("star", "red", 2))["shape"] is False
    assert _judged(ObjectSpec(None, "red", 2))["colour"] is True
    assert _judged(ObjectSpec("star", "red"), ObjectSpec("star", "red"))["shape"] is False


@pytest.mark.parametrize(("part", "thing"), [("colour", ObjectSpec("star")), ("shape", ObjectSpec(None, "red"))])
def test_what_is_not_named_is_no_part(part, thing):
    assert _judged(thing)[part] is None


def test_a_picture_of_nothing():
    noise = Image.effect_noise((64, 64), 90).convert("RGB")
    found = _judged(ObjectSpec("star", "red"), picture=noise)
    assert found == dict.fromkeys(PARTS, False)
