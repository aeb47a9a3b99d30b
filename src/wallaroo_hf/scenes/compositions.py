"""Edits of two pictures: what the first one shows is brought into the second, which is all that is changed.

Such an edit is one of `edits` whose new thing is not named but shown, so it is judged as one: "put the heart of the first
picture into the second one" adds a heart of that colour, and everything else stays as it is.
"""

from __future__ import annotations

import dataclasses
import random
from typing import NamedTuple

from .edits import EditPlan, plan_edit
from .phrases import Speaker
from .scene import MAX_OBJECTS, Scene, SceneObject, random_scene
from .splits import SPLITS, admits
from .tasks import Row, turn
from .words import LANGUAGES

__all__ = ["COMPOSITIONS", "make_composition"]

# what is taken from the first picture -> the edit of the second one that it makes
COMPOSITIONS = {"object": "add", "colour": "recolour", "shape": "replace", "background": "background"}
_NAMED_BY = {"shape": "colour"}  # what names the thing that is shown, else its shape: not what is taken from it
_COLOURED = {"en": ("the {c} object", "the {c} thing"), "zh": ("{c}的物体", "{c}物体")}
_MAX_TRIES = 20_000

# {o} is what the first picture shows, {x} what is changed in the second one, {p} where something goes
_TEMPLATES = {
    "en": {
        "object": (
            "put {o} of the first picture into the second picture", "add {o} of the first picture to the second picture",
            "bring {o} from the first picture into the second one", "copy {o} from the first picture into the second",
        ),
        "object_there": (
            "put {o} of the first picture {p} of the second picture", "add {o} of the first picture {p} of the second one",
        ),
        "colour": (
            "give {x} of the second picture the colour of {o} in the first picture",
            "paint {x} in the second picture in the colour of {o} in the first",
        ),
        "shape": (
            "give {x} of the second picture the shape of {o} in the first picture",
            "in the second picture, change the shape of {x} to that of {o} in the first",
        ),
        "background": (
            "give the second picture the background of the first picture",
            "use the background of the first picture in the second one",
            "change the background of the second picture to that of the first",
        ),
    },
    "zh": {
        "object": (
            "把第一张图里的{o}放到第二张图里", "在第二张图里加上第一张图里的{o}", "把第一张图的{o}复制到第二张图中",
        ),
        "object_there": ("把第一张图里的{o}放到第二张图的{p}", "在第二张图的{p}加上第一张图里的{o}"),
        "colour": ("把第二张图里的{x}变成第一张图里{o}的颜色", "用第一张图里{o}的颜色涂第二张图里的{x}"),
        "shape": ("把第二张图里的{x}变成第一张图里{o}的形状", "让第二张图里的{x}的形状和第一张图里的{o}一样"),
        "background": ("把第二张图的背景变成第一张图的背景", "第二张图用第一张图的背景", "让第二张图的背景和第一张图一样"),
    },
}  # fmt: skip


class _Composition(NamedTuple):
    """Before it is put into words: the first picture, what of it is meant (None = its background), and the edit."""

    reference: Scene
    shown: SceneObject | None
    plan: EditPlan


def make_composition(
    seed: int,
    index: int,
    split: str = "train",
    category: str | None = None,
    language: str | None = None,
    size: tuple[int, int] | None = None,
) -> Row:
    """One edit of two pictures of one size, without the pictures: equal arguments give equal rows.

    Args:
        seed: the data set's seed.
        index: the row's index; the row depends on no other.
        split: one of `splits.SPLITS`; a held-out one holds out what comes of the edit, as for edits of one picture.
        category: what is taken from the first picture, one of `COMPOSITIONS`.
        language: "en" or "zh".
        size: `(height, width)` in pixels of all pictures; one of `scene.SIZES` if None.

    Returns:
        A row as of [`tasks.make_row`] with the task "composition" and one more entry: `shown`, the scenes of the pictures
        in the user's turn. `scene` is the second of them, and `spec` the edit of it, for [`verify.check_edit`].

    Raises:
        ValueError: for an unknown split, category or language.
        RuntimeError: if no such row turned up; that does not happen.
    """
    chosen = {"split": (split, SPLITS), "category": (category, tuple(COMPOSITIONS)), "language": (language, LANGUAGES)}
    for kind, (given, known) in chosen.items():
        if given not in known and (given is not None or kind == "split"):
            raise ValueError(f"unknown {kind} {given!r}: use one of {', '.join(known)}")
    rng = random.Random(f"{seed}/{split}/{index}/composition/{category}/{language}/{size}")
    category = category or rng.choice(list(COMPOSITIONS))
    language = language or rng.choice(LANGUAGES)
    for _ in range(_MAX_TRIES):
        plan = plan_edit(rng, COMPOSITIONS[category], size)
        if plan.spec.anchor is None and admits(split, plan.main):
            made = _compose(rng, category, plan)
            if made is not None:
                return _row(made, category, Speaker(language, rng))
    raise RuntimeError(f"no composition of the category {category!r} was found for the split {split!r}")


def _compose(rng: random.Random, category: str, plan: EditPlan) -> _Composition | None:
    """A first picture that shows what the edit needs; None if chance led to one that cannot say it."""
    spec, size = plan.spec, (plan.scene.height, plan.scene.width)
    reference = random_scene(rng, size, rng.randint(1, MAX_OBJECTS - 1))
    if category == "background" and spec.background is not None:
        return _Composition(dataclasses.replace(reference, background=spec.background), None, plan)
    if category == "shape" and spec.colour is not None:  # that would take the colour, too
        return None
    thing = rng.choice(reference.objects)
    shown = dataclasses.replace(thing, shape=spec.shape or thing.shape, colour=spec.colour or thing.colour)
    others = tuple(other for other in reference.objects if other != thing)
    name = _NAMED_BY.get(category, "shape")
    if any(getattr(other, name) == getattr(shown, name) for other in others):
        return None
    return _Composition(dataclasses.replace(reference, objects=(*others, shown)), shown, plan)


def _row(made: _Composition, category: str, speaker: Speaker) -> Row:
    plan, spec = made.plan, made.plan.spec
    words = _say(made, category, speaker)
    return {
        "messages": [turn("user", None, None, words), turn("assistant", None)],
        "task": "composition",
        "category": category,
        "language": speaker.language,
        "prompt": words,
        "shown": [made.reference.to_dict(), plan.scene.to_dict()],
        "scene": plan.scene.to_dict(),
        "target_scene": plan.target.to_dict(),
        "spec": spec.to_dict(),
        "combinations": {"main": [list(one) for one in plan.main], "others": []},
    }


def _say(made: _Composition, category: str, speaker: Speaker) -> str:
    """The instruction; of what is shown it never names what the edit takes from it."""
    spec, values = made.plan.spec, {}
    if made.shown is not None and _NAMED_BY.get(category) == "colour":
        values["o"] = speaker.pick(_COLOURED[speaker.language]).format(c=speaker.colour(made.shown.colour))
    elif made.shown is not None:
        values["o"] = speaker.the(made.shown.shape)
    if spec.object is not None:  # "it" would not say of which picture
        values["x"] = speaker.the(spec.object.pick(made.plan.scene).shape, spec.object.colour)
    if spec.place is not None:
        values["p"] = speaker.place(spec.place)
    key = "object_there" if "p" in values else category
    return speaker.sentence(speaker.pick(_TEMPLATES[speaker.language][key]).format(**values))
