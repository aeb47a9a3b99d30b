"""The exact judge of scenes: does a picture show what a caption says, does an answer hold, did an edit do just its job?

Nothing in it is learned: `reading.read_scene` reads the picture by palette and shape templates, `answer_values` reads
words, and this module compares them with a specification (`specs.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from . import answer_values
from .geometry import Point, holds, is_at
from .reading import ReadObject, ReadScene, read_scene
from .scene import Scene, SceneObject
from .shapes import SLOT
from .specs import AnswerSpec, CaptionSpec, EditSpec, ObjectSpec

Picture: TypeAlias = Image.Image | np.ndarray | ReadScene

_HALF_SLOT = SLOT / 2
_DIRECTION_PARTS = {"left_of": "left", "right_of": "right", "above": "top", "below": "bottom"}


@dataclass(frozen=True)
class Verdict:
    """A judgement; true in a condition if it is good.

    Attributes:
        ok: whether the specification is met.
        reason: why not, in a few words; empty if it is met.
    """

    ok: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.ok


GOOD = Verdict(True)


def check_caption(image: Picture, spec: CaptionSpec | Mapping[str, Any]) -> Verdict:
    """Whether a picture shows exactly what a caption says.

    Args:
        image: the picture, `(H, W, 3)` uint8 RGB, or what was read from one.
        spec: what it must show, see [`CaptionSpec`]; a dictionary is read by its `from_dict`.

    Raises:
        ValueError: for a bad specification.
    """
    spec = spec if isinstance(spec, CaptionSpec) else CaptionSpec.from_dict(spec)
    scene = image if isinstance(image, ReadScene) else read_scene(image)
    wrong_background = _judge_background(scene, spec.background)
    if wrong_background:
        return Verdict(False, wrong_background)
    wanted = [index for index, group in enumerate(spec.objects) for _ in range(group.count)]
    if len(wanted) != len(scene.objects):
        return Verdict(False, f"{len(wanted)} objects expected, found {len(scene.objects)}: {_names(scene.objects)}")
    if not _assign(scene, spec, wanted, relations=False):
        expected = ", ".join(_name(group) for group in spec.objects)
        return Verdict(False, f"expected {expected}; found {_names(scene.objects)}")
    if not _assign(scene, spec, wanted, relations=True):
        first, direction, second = spec.relations[0]
        told = f"{_name(spec.objects[first])} {direction} {_name(spec.objects[second])}"
        return Verdict(
            False, f"expected {told}{' and more relations' if len(spec.relations) > 1 else ''}; it is not so"
        )
    return GOOD


def check_answer(text: str, spec: AnswerSpec | Mapping[str, Any]) -> Verdict:
    """Whether an answer says the right thing, in whatever words `answer_values` understands.

    Case, punctuation, articles and word order around the point do not matter; a second, different value of the kind asked
    for does, and so do a word that has no meaning here and, unless the question is one of yes or no, a denial ("not red").

    Args:
        text: the answer.
        spec: what it must say, see [`AnswerSpec`]; a dictionary is read by its `from_dict`.

    Raises:
        ValueError: for a bad specification.
    """
    spec = spec if isinstance(spec, AnswerSpec) else AnswerSpec.from_dict(spec)
    if spec.language is not None and answer_values.language_of(text) != spec.language and not text.strip().isdecimal():
        return Verdict(False, f"the answer {text!r} is not in the language {spec.language!r}")
    if spec.kind == "objects":
        return _check_listing(text, spec)
    kind = {"place": "part", "direction": "part", "exists": "yes_no"}.get(spec.kind, spec.kind)
    said = answer_values.values(text, kind)
    if said is None:
        return Verdict(False, f"the answer {text!r} is not understood")
    if kind == "yes_no":
        said = said[:1]  # "no, it is ..."
    expected = {str(spec.value)}
    if spec.kind == "place":
        expected = set(str(spec.value).replace("centre", "middle").split("_"))
    elif spec.kind == "direction":
        expected = {_DIRECTION_PARTS[str(spec.value)]}
    if set(said) != expected:
        return Verdict(False, f"expected {' '.join(sorted(expected))}; the answer is {text!r}")
    return GOOD


def check_edit(source: Scene | Mapping[str, Any], image: Picture, spec: EditSpec | Mapping[str, Any]) -> Verdict:
    """Whether a picture is the source with the edit made and nothing else changed.

    Unchanged objects keep shape, colour, and place to within half a slot; the background stays unless it is what is edited.

    Args:
        source: the scene that was edited; a dictionary is read by `Scene.from_dict`.
        image: the edited picture, `(H, W, 3)` uint8 RGB, or what was read from one.
        spec: what was to be done, see [`EditSpec`]; a dictionary is read by its `from_dict`.

    Raises:
        ValueError: for a bad scene or specification, or one that names an object that is not there.
    """
    source = source if isinstance(source, Scene) else Scene.from_dict(source)
    spec = spec if isinstance(spec, EditSpec) else EditSpec.from_dict(spec)
    scene = image if isinstance(image, ReadScene) else read_scene(image)
    edited = None if spec.object is None else spec.object.pick(source)
    anchor = None if spec.anchor is None else spec.anchor.pick(source)
    if (scene.height, scene.width) != (source.height, source.width):
        sizes = f"{source.height}x{source.width} (height x width), not {scene.height}x{scene.width}"
        return Verdict(False, f"the picture must have its source's size, {sizes}")
    wrong_background = _judge_background(scene, spec.background or source.background)
    if wrong_background:
        return Verdict(False, wrong_background)
    rest = list(scene.objects)
    for thing in source.objects:
        if thing == edited:
            continue
        kept = next((found for found in rest if _is_same(found, thing, _centre(thing))), None)
        if kept is None:
            return Verdict(
                False, f"the {thing.colour} {thing.shape} did not stay as it was; found {_names(scene.objects)}"
            )
        rest.remove(kept)
    return _check_change(scene, spec, edited, anchor, rest)


def _check_change(
    scene: ReadScene,
    spec: EditSpec,
    edited: SceneObject | None,
    anchor: SceneObject | None,
    rest: Sequence[ReadObject],
) -> Verdict:
    """Judges the objects that are not simply the source's."""
    expected = 0 if spec.operation in ("remove", "background") else 1
    if len(rest) != expected:
        return Verdict(False, f"{expected} changed or new objects expected, found {len(rest)}: {_names(rest)}")
    if not rest:
        return GOOD
    found = rest[0]
    shape = spec.shape or (edited.shape if edited else None)
    colour = spec.colour or (edited.colour if edited else None)
    if (found.shape, found.colour) != (shape, colour):
        return Verdict(False, f"expected a {colour} {shape}, found a {found}")
    if edited is not None:
        stayed = _is_near(found.centre, _centre(edited))
        if spec.operation == "move" and stayed:
            return Verdict(False, f"the {colour} {shape} has not moved")
        if spec.operation != "move" and not stayed:
            return Verdict(False, f"the {colour} {shape} is not where the {edited.colour} {edited.shape} was")
    if spec.place is not None and not is_at(spec.place, scene.slot(found), scene.grid):
        return Verdict(False, f"the {colour} {shape} is not at {spec.place}")
    if anchor is not None and not holds(spec.direction or "", found.centre, _centre(anchor), _HALF_SLOT):
        return Verdict(False, f"the {colour} {shape} is not {spec.direction} the {anchor.colour} {anchor.shape}")
    return GOOD


def _check_listing(text: str, spec: AnswerSpec) -> Verdict:
    said = answer_values.listing(text)
    if said is None:
        return Verdict(False, f"the answer {text!r} is not understood")
    expected: Counter[tuple[str | None, str | None]] = Counter()
    for group in spec.objects:
        expected[group.shape, group.colour] += group.count
    if said.objects != expected:
        return Verdict(False, f"expected {', '.join(map(_name, spec.objects))}; the answer is {text!r}")
    if spec.background is not None and said.backgrounds != {spec.background}:
        return Verdict(False, f"expected a {spec.background} background; the answer is {text!r}")
    return GOOD


def _assign(scene: ReadScene, spec: CaptionSpec, wanted: Sequence[int], relations: bool) -> bool:
    """Whether the objects can be dealt out to the entries of a caption, each to one that it fits."""
    chosen: list[ReadObject] = []

    def fits(index: int, found: ReadObject) -> bool:
        group = spec.objects[index]
        if group.shape not in (None, found.shape) or group.colour not in (None, found.colour) or found.shape is None:
            return False
        if found.colour is None or (group.place and not is_at(group.place, scene.slot(found), scene.grid)):
            return False
        return not relations or all(
            holds(direction, one.centre, other.centre, _HALF_SLOT)
            for first, direction, second in spec.relations
            for one, other in _new_pairs(index, found, first, second)
        )

    def _new_pairs(index: int, found: ReadObject, first: int, second: int) -> list[tuple[ReadObject, ReadObject]]:
        """Pairs that a relation speaks of and that the object completes."""
        earlier = list(zip(wanted, chosen))
        pairs = [(found, other) for at, other in earlier if index == first and at == second]
        return pairs + [(other, found) for at, other in earlier if index == second and at == first]

    def extend(depth: int) -> bool:
        if depth == len(wanted):
            return True
        # alike entries take their objects in order, or the number of ways would explode
        alike = depth > 0 and wanted[depth] == wanted[depth - 1]
        start = next(at for at, found in enumerate(scene.objects) if found is chosen[-1]) + 1 if alike else 0
        for found in scene.objects[start:]:
            if all(found is not other for other in chosen) and fits(wanted[depth], found):
                chosen.append(found)
                if extend(depth + 1):
                    return True
                chosen.pop()
        return False

    return extend(0)


def _judge_background(scene: ReadScene, expected: str | None) -> str:
    """What is wrong with a background, or ""."""
    if scene.background is None:
        return "the background is none of the palette's"
    if expected not in (None, scene.background):
        return f"expected a {expected} background, found {scene.background}"
    return ""


def _centre(thing: SceneObject) -> Point:
    return thing.row * SLOT + _HALF_SLOT, thing.col * SLOT + _HALF_SLOT


def _is_near(one: Point, other: Point) -> bool:
    return max(abs(one[0] - other[0]), abs(one[1] - other[1])) < _HALF_SLOT


def _is_same(found: ReadObject, thing: SceneObject, centre: Point) -> bool:
    return (found.shape, found.colour) == (thing.shape, thing.colour) and _is_near(found.centre, centre)


def _name(group: ObjectSpec) -> str:
    words = [str(group.count), group.colour or "", group.shape or "object", f"at {group.place}" if group.place else ""]
    return " ".join(word for word in words if word)


def _names(things: Sequence[ReadObject]) -> str:
    return ", ".join(map(str, things)) or "nothing"
