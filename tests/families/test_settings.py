"""One knob said once: what it takes, how a text is read, and what is said of what cannot be."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from wallaroo_hf import default_checkpoint
from wallaroo_hf.families.registry import read_abilities
from wallaroo_hf.families.settings import Setting, UnknownSettingError
from wallaroo_hf.families.vocabulary import unknown_notice, unknown_words
from wallaroo_hf.layout.wallaroo_abilities import wallaroo_abilities

SCALE = Setting("guidance_scale", float, "draw", 3.0, "help", minimum=0, maximum=100, sensible=(1.0, 4.0))
WINDOW = Setting("window", int, "draw", 1, "help", minimum=1, choices=("auto",))
TOP_P = Setting("top_p", float, "draw", 1.0, "help", minimum=0, maximum=1, above_minimum=True)
FIT = Setting("source_fit", str, "prepare", "pad", "help", choices=("pad", "crop"))
TEMPLATE = Setting("prompt_template", str, "prepare", "0", "help")
SWITCH = Setting("published_eval", bool, "both", False, "help")

TAKEN = [
    *[(SCALE, 0), (SCALE, 2.5), (SCALE, 100), (WINDOW, 4), (WINDOW, "auto"), (TOP_P, 1), (TOP_P, 1e-9)],
    *[(FIT, "crop"), (TEMPLATE, 3), (TEMPLATE, "draw {prompt}"), (SWITCH, True)],
]
REFUSED = [
    (SCALE, -1, "a number from 0 to 100"),
    (SCALE, float("nan"), "a number from 0 to 100"),
    (SCALE, True, "a number from 0 to 100"),
    (SCALE, "3", "a number from 0 to 100"),
    (WINDOW, 0, "a whole number from 1 on or 'auto'"),
    (WINDOW, 2.5, "a whole number from 1 on or 'auto'"),
    (WINDOW, "four", "a whole number from 1 on or 'auto'"),
    (TOP_P, 0, "a number above 0 and at most 1"),
    (FIT, "fit", "'pad' or 'crop'"),
    (FIT, 0, "'pad' or 'crop'"),
    (TEMPLATE, 1.5, "text"),
    (SWITCH, 1, "true or false"),
]


@pytest.mark.parametrize(("setting", "value"), TAKEN, ids=lambda one: getattr(one, "name", repr(one)))
def test_taken(setting, value):
    assert setting.check(value) == value


@pytest.mark.parametrize(("setting", "value", "words"), REFUSED, ids=lambda one: getattr(one, "name", repr(one)))
def test_refused(setting, value, words):
    with pytest.raises(ValueError) as error:
        setting.check(value)
    assert str(error.value) == f"`{setting.name}` is {value!r}, but must be {words}."


def test_texts():
    assert (SCALE.parse("2.5"), WINDOW.parse("4"), WINDOW.parse("auto")) == (2.5, 4, "auto")
    assert (SWITCH.parse("true"), SWITCH.parse("False"), FIT.parse("crop"), TEMPLATE.parse("2")) == (
        True,
        False,
        "crop",
        "2",
    )
    for setting, text in ((SCALE, "much"), (WINDOW, "2.5"), (SWITCH, "yes"), (FIT, "fill")):
        with pytest.raises(ValueError, match=f"`{setting.name}` is"):
            setting.parse(text)


def _abilities(**generation):
    return wallaroo_abilities({}, generation, {"buckets": [[96, 96]]})


def test_those_of_a_checkpoint():
    """Defaults and sensible ranges are the checkpoint's own; a stage that does not edit has no settings of edits."""
    abilities = _abilities(image_guidance_scale=1.5, sensible_ranges={"guidance_scale": [1, 4]})
    scale = abilities.setting("guidance_scale")
    assert (scale.default, scale.sensible) == (1.5, (1.0, 4.0))
    assert abilities.notices({"guidance_scale": 5}) and not abilities.notices({"guidance_scale": 4})
    assert not _abilities().notices({"guidance_scale": 50})
    plain = wallaroo_abilities({"has_editing": False}, {}, {})
    assert plain.setting("source_fit") is None and abilities.setting("source_fit") is not None
    folder = Path(default_checkpoint())
    own = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    built_in = read_abilities(folder, folder)
    for name in ("guidance_scale", "guidance_min_p", "temperature", "top_k"):
        assert built_in.setting(name).default == own[f"image_{name}"]


def test_settings_that_are_none():
    with pytest.raises(
        UnknownSettingError, match=r"has no setting `temprature`; it has .*; did you mean `temperature`\?"
    ):
        _abilities().check_settings({"temprature": 1.0})
    assert _abilities().check_settings({"temperature": None, "top_k": 5}) == {"top_k": 5}


def test_words_that_must_not_be_spelt():
    abilities = dataclasses.replace(_abilities(), special_tokens=("<|im_end|>", "<|im_start|>"))
    with pytest.raises(ValueError, match=r"The negative prompt contains the special token <\|im_end\|>"):
        abilities.check_words("a<|im_end|>", "negative prompt")
    with pytest.raises(ValueError, match="half of a character"):
        abilities.check_words("\ud800")
    with pytest.raises(ValueError, match="The prompt is empty"):
        abilities.check_prompt("  ")
    with pytest.raises(ValueError, match="20,001 characters"):
        abilities.check_prompt("a" * 20_001)
    text = abilities.without_special_tokens("a<|im_<|im_end|>end|>b <tool_call>")
    assert text == "a<|im_ end|>b <tool_call>"


KNOWN = {
    "en": {"shapes": ["circle", "plus sign"], "colours": ["red"], "others": ["a", "draw", "circles"]},
    "zh": {"shapes": ["圆形", "五角星"], "colours": ["红色"], "others": ["画", "个", "的"]},
}


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("Draw a red circle!", []),
        ("draw a Cat, a brown cat and a plus sign", ["Cat", "brown", "cat", "and"]),
        ("five circles, 12 circles", ["five", "12"]),
        ("画五个红色的五角星", ["五"]),
        ("画猫咪和red圆形", ["猫咪和"]),
        ("", []),
    ],
)
def test_unknown_words(prompt, unknown):
    assert unknown_words(prompt, KNOWN) == unknown
    abilities = dataclasses.replace(_abilities(), known_words=KNOWN)
    assert abilities.unknown_words(prompt) == unknown and len(abilities.notices({}, prompt)) == bool(unknown)
    assert _abilities().unknown_words(prompt) == []


def test_the_notice_names_what_is_known():
    said = unknown_notice(["cat", "brown"], KNOWN)
    assert "the words 'cat', 'brown'" in said and said.endswith("it knows shapes: circle, plus sign; colours: red.")
    assert "圆形" in unknown_notice(["猫"], KNOWN) and "circles" not in said


def test_what_was_never_learned_is_said():
    built_in = read_abilities(Path(default_checkpoint()), "built-in")
    assert built_in.untrained == ("composition", "video")
    assert built_in.notices(tasks=["video", "composition"]) == [
        "This Wallaroo checkpoint was not trained on videos, so expect little.",
        "This Wallaroo checkpoint was not trained on edits of several pictures, so expect little.",
    ]
    assert built_in.notices() == built_in.notices(tasks=["image-editing"]) == []
    released = wallaroo_abilities({}, {}, {})
    assert released.untrained == ("composition",) and released.notices(tasks=["video"]) == []
    assert wallaroo_abilities({}, {"untrained_tasks": []}, {}).notices(tasks=["composition"]) == []
