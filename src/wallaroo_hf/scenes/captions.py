"""Text-to-image rows in GenEval's six categories: what is drawn, and how it is asked for."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .geometry import CELLS, DIRECTIONS, INVERSE, SIDES, cell, is_at
from .palette import BACKGROUNDS, COLOURS
from .phrases import Speaker
from .scene import Scene, SceneObject, random_size
from .shapes import SHAPES
from .specs import CaptionSpec, ObjectSpec
from .splits import Combination, pair
from .words import DIRECTION_WORDS

CAPTION_CATEGORIES = ("single_object", "two_object", "counting", "colours", "position", "colour_attribution")
_BACKGROUND_RATE = 0.35  # of captions that name the background


@dataclass(frozen=True)
class CaptionPlan:
    """A caption before it is put into words.

    Args:
        spec: what it says.
        scene: a picture of it.
        main: the combinations that it is about, see `splits`.
        others: the further combinations that its picture shows.
    """

    spec: CaptionSpec
    scene: Scene
    main: tuple[Combination, ...]
    others: tuple[Combination, ...] = ()


def plan_caption(
    rng: random.Random, category: str, held_out: bool = False, size: tuple[int, int] | None = None
) -> CaptionPlan:
    """Draws what a caption says and a scene that satisfies it: what the caption leaves open is open in the scene.

    Args:
        rng: source of randomness.
        category: one of `CAPTION_CATEGORIES`.
        held_out: for a held-out split: the caption names what makes its combination, so that its prompt is new too.
        size: `(height, width)` in pixels; one of `scene.SIZES` if None.
    """
    size, background = size or random_size(rng), rng.choice(BACKGROUNDS)
    named = background if rng.random() < _BACKGROUND_RATE or (held_out and category == "single_object") else None
    return _PLANNERS[category](rng, Scene(*size, background), named, held_out)


def plan_crowd(rng: random.Random, size: tuple[int, int], count: int) -> CaptionPlan:
    """Like the category "colour_attribution", of a given number of objects."""
    empty = Scene(*size, rng.choice(BACKGROUNDS))
    named = empty.background if rng.random() < _BACKGROUND_RATE else None
    shapes = rng.sample(SHAPES, count)
    kinds = list(zip(shapes, rng.sample(COLOURS, count)))
    spec = CaptionSpec(tuple(ObjectSpec(*kind) for kind in kinds), background=named)
    main = tuple(Combination(*kind, "with_other") for kind in kinds)
    return CaptionPlan(spec, _filled(rng, empty, kinds), main, _pairs(shapes))


def plan_placed(rng: random.Random, size: tuple[int, int], count: int) -> CaptionPlan:
    """Like [`plan_crowd`], but the caption says of every object where it is, in any order."""
    empty = Scene(*size, rng.choice(BACKGROUNDS))
    named = empty.background if rng.random() < _BACKGROUND_RATE else None
    by_place: dict[str, list[tuple[int, int]]] = {}
    for slot in empty.slots():
        by_place.setdefault(cell(slot, (empty.rows, empty.cols)), []).append(slot)
    places = rng.sample(list(by_place), min(count, len(by_place)))
    shapes, colours = rng.sample(SHAPES, len(places)), rng.sample(COLOURS, len(places))
    objects = tuple(
        SceneObject(*rng.choice(by_place[place]), shape, colour)
        for place, shape, colour in zip(places, shapes, colours)
    )
    groups = tuple(ObjectSpec(shape, colour, place=place) for place, shape, colour in zip(places, shapes, colours))
    main = tuple(Combination(shape, colour, "placed") for shape, colour in zip(shapes, colours))
    scene = Scene(*size, empty.background, objects)
    return CaptionPlan(CaptionSpec(groups, background=named), scene, main, _pairs(shapes))


def _filled(rng: random.Random, empty: Scene, kinds: list[tuple[str, str]]) -> Scene:
    """The scene with one object of each kind (shape, colour), in random slots but in the order in which they are named.

    What is named first is seen first, as people draw. It is left to captions of positions to ask for another order.
    """
    slots = sorted(rng.sample(empty.slots(), len(kinds)))
    objects = tuple(SceneObject(row, col, shape, colour) for (row, col), (shape, colour) in zip(slots, kinds))
    return Scene(empty.height, empty.width, empty.background, objects)


def _pairs(shapes: list[str]) -> tuple[Combination, ...]:
    return tuple(pair(first, second) for i, first in enumerate(shapes) for second in shapes[i + 1 :])


def _plan_single(rng: random.Random, empty: Scene, background: str | None, held_out: bool) -> CaptionPlan:
    shape, colour = rng.choice(SHAPES), rng.choice(COLOURS)
    spec = CaptionSpec((ObjectSpec(shape),), background=background)
    on, alone = Combination(shape, empty.background, "on"), Combination(shape, colour, "alone")
    return CaptionPlan(spec, _filled(rng, empty, [(shape, colour)]), (on,), (alone,))


def _plan_colours(rng: random.Random, empty: Scene, background: str | None, held_out: bool) -> CaptionPlan:
    shape, colour = rng.choice(SHAPES), rng.choice(COLOURS)
    spec = CaptionSpec((ObjectSpec(shape, colour),), background=background)
    on, alone = Combination(shape, empty.background, "on"), Combination(shape, colour, "alone")
    return CaptionPlan(spec, _filled(rng, empty, [(shape, colour)]), (alone,), (on,))


def _plan_counting(rng: random.Random, empty: Scene, background: str | None, held_out: bool) -> CaptionPlan:
    shape, other = rng.sample(SHAPES, 2)
    colour, other_colour = rng.choice(COLOURS), rng.choice(COLOURS)
    mixed = rng.random() < 0.25
    count = rng.randint(2, 3 if mixed else 4)
    main = (Combination(shape, colour, f"counted_{count}"),)
    # a caption without a colour still means alike objects: "three circles" are drawn in one colour
    named = colour if mixed or held_out or rng.random() < 0.75 else None
    groups = [ObjectSpec(shape, named, count)]
    kinds = [(shape, colour)] * count
    others: tuple[Combination, ...] = ()
    if mixed:
        first = rng.randint(0, 1) == 0
        groups.insert(0 if first else 1, ObjectSpec(other, other_colour))
        kinds.insert(0 if first else count, (other, other_colour))
        others = (Combination(other, other_colour, "with_other"), pair(shape, other))
    return CaptionPlan(CaptionSpec(tuple(groups), background=background), _filled(rng, empty, kinds), main, others)


def _plan_two(rng: random.Random, empty: Scene, background: str | None, held_out: bool) -> CaptionPlan:
    shapes = rng.sample(SHAPES, 2 if rng.random() < 0.8 else 3)
    kinds = [(shape, rng.choice(COLOURS)) for shape in shapes]
    spec = CaptionSpec(tuple(ObjectSpec(shape) for shape in shapes), background=background)
    others = tuple(Combination(*kind, "with_other") for kind in kinds)
    return CaptionPlan(spec, _filled(rng, empty, kinds), _pairs(shapes), others)


def _plan_attribution(rng: random.Random, empty: Scene, background: str | None, held_out: bool) -> CaptionPlan:
    count = rng.choices((2, 3, 4), (0.75, 0.2, 0.05))[0]
    shapes = rng.sample(SHAPES, count)
    if rng.random() < 0.15:
        shapes[1] = shapes[0]
    kinds = list(zip(shapes, rng.sample(COLOURS, count)))
    spec = CaptionSpec(tuple(ObjectSpec(*kind) for kind in kinds), background=background)
    main = tuple(Combination(*kind, "with_other") for kind in kinds)
    return CaptionPlan(spec, _filled(rng, empty, kinds), main, _pairs(shapes))


def _plan_position(rng: random.Random, empty: Scene, background: str | None, held_out: bool) -> CaptionPlan:
    if rng.random() < 0.25:
        return _plan_place(rng, empty, background)
    coloured = rng.random() < 0.6
    shapes, colours = rng.sample(SHAPES, 2), rng.sample(COLOURS, 2)
    if coloured and rng.random() < 0.15:
        shapes[1] = shapes[0]
    direction = rng.choice(DIRECTIONS)
    slots = aligned_slots(rng, empty, direction)
    objects = tuple(SceneObject(*slot, shape, colour) for slot, shape, colour in zip(slots, shapes, colours))
    groups = tuple(ObjectSpec(shape, colour if coloured else None) for shape, colour in zip(shapes, colours))
    shapes_related = (pair(shapes[0], shapes[1], direction),)
    related = (
        Combination(shapes[0], colours[0], direction),
        Combination(shapes[1], colours[1], INVERSE[direction]),
    )
    spec = CaptionSpec(groups, ((0, direction, 1),), background)
    scene = Scene(empty.height, empty.width, empty.background, objects)
    return CaptionPlan(spec, scene, *((related, shapes_related) if coloured else (shapes_related, related)))


def _plan_place(rng: random.Random, empty: Scene, background: str | None) -> CaptionPlan:
    shape, colour = rng.choice(SHAPES), rng.choice(COLOURS)
    grid = (empty.rows, empty.cols)
    fitting = {place: [slot for slot in empty.slots() if is_at(place, slot, grid)] for place in (*CELLS, *SIDES)}
    place = rng.choice([name for name, slots in fitting.items() if slots])
    thing = SceneObject(*rng.choice(fitting[place]), shape, colour)
    spec = CaptionSpec((ObjectSpec(shape, colour, place=place),), background=background)
    scene = Scene(empty.height, empty.width, empty.background, (thing,))
    return CaptionPlan(spec, scene, (Combination(shape, colour, "placed"),))


def aligned_slots(rng: random.Random, scene: Scene, direction: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Two slots in one row or column, the first in a direction, one of `geometry.DIRECTIONS`, from the second."""
    sideways = direction in ("left_of", "right_of")
    along, across = (scene.cols, scene.rows) if sideways else (scene.rows, scene.cols)
    low, high = sorted(rng.sample(range(along), 2))
    fixed = rng.randrange(across)
    first, second = (low, high) if direction in ("left_of", "above") else (high, low)
    return ((fixed, first), (fixed, second)) if sideways else ((first, fixed), (second, fixed))


_PLANNERS = {
    "single_object": _plan_single,
    "two_object": _plan_two,
    "counting": _plan_counting,
    "colours": _plan_colours,
    "position": _plan_position,
    "colour_attribution": _plan_attribution,
}

# ------------------------------------------------------------------------------------------------------------ words

# what a phrase ("a red circle") may be wrapped into
_FRAMES = {
    "en": (
        "{x}", "{x}", "{x}", "{x}", "a picture of {x}", "an image of {x}", "a photo of {x}", "a drawing of {x}",
        "draw {x}", "please draw {x}", "draw me {x}", "paint {x}", "show me {x}", "generate an image of {x}",
        "create a picture of {x}", "make a picture of {x}", "I want a picture of {x}", "can you draw {x}?",
    ),
    "zh": (
        "{x}", "{x}", "{x}", "{x}", "画{x}", "请画{x}", "帮我画{x}", "请帮我画{x}", "给我画{x}", "{x}的图片",
        "一张{x}的图片", "一幅{x}的画", "生成{x}的图片", "生成一张{x}的图片", "我想要一张{x}的图片", "图中有{x}",
    ),
}  # fmt: skip
# and what a clause ("there is a red circle") may be
_CLAUSE_FRAMES = {"en": ("{x}",), "zh": ("{x}", "{x}", "图中{x}", "一张{x}的图片", "生成一张{x}的图片")}
# orders to draw, as in a chat; a Chinese clause may follow as well
_REQUESTS = {
    "en": ("draw {x}", "please draw {x}", "draw me {x}", "paint {x}", "can you draw {x}?", "make a picture of {x}"),
    "zh": ("画{x}", "请画{x}", "帮我画{x}", "请帮我画{x}", "给我画{x}"),
}
_ON_BACKGROUND = {
    "en": (
        "{x} on a {c} background", "{x} on a {c} background", "{x} against a {c} background", "{x}, {c} background",
        "{x} with a {c} background",
    ),
    "zh": ("{c}背景上的{x}", "{x}，{c}背景", "{x}，背景是{c}"),
}  # fmt: skip
_CLAUSE_ON_BACKGROUND = {
    "en": ("on a {c} background, {x}", "{x} on a {c} background"),
    "zh": ("{c}背景，{x}", "{x}，{c}背景", "{x}，背景是{c}"),
}
_CONJUNCTIONS = {"en": ("and", "and", "and", "with"), "zh": ("和", "和", "与", "还有")}
# {d} is a direction's phrase, {p} a place's; phrases first, then clauses
_RELATED: dict[str, tuple[str, ...]] = {"en": ("{a} {d} {b}",), "zh": ()}  # Chinese relations are all clauses
_RELATED_CLAUSES = {
    "en": ("{a} is {d} {b}", "there is {a} {d} {b}", "{d} {b} there is {a}"),
    "zh": ("{a}在{b}的{d}", "{a}在{b}的{d}", "{a}在{b}{d}", "{b}的{d}是{a}", "{b}的{d}有{a}", "{b}{d}有{a}"),
}
_PLACED = {"en": ("{a} {p}", "{a} {p}", "{a} {p} of the picture", "{a} placed {p}"), "zh": ("{p}的{a}",)}
_PLACED_CLAUSES = {
    "en": ("{p} there is {a}", "there is {a} {p}"),
    "zh": ("{a}在{p}", "{a}在{p}", "{p}有{a}", "图片{p}有{a}", "{a}在图片{p}"),
}
_BY_SIDES = {
    "en": {
        "left_of": ("{a} on the left and {b} on the right", "{b} with {a} to its left"),
        "right_of": ("{a} on the right and {b} on the left", "{b} with {a} to its right"),
        "above": ("{a} at the top and {b} at the bottom", "{b} with {a} above it"),
        "below": ("{a} at the bottom and {b} at the top", "{b} with {a} below it"),
    },
    "zh": {
        "left_of": ("左边是{a}，右边是{b}", "{a}在左，{b}在右"),
        "right_of": ("右边是{a}，左边是{b}", "{a}在右，{b}在左"),
        "above": ("上面是{a}，下面是{b}", "{a}在上，{b}在下"),
        "below": ("下面是{a}，上面是{b}", "{a}在下，{b}在上"),
    },
}
_BY_SIDES_RATE = 0.25
_CLAUSE_RATES = {"en": 0.2, "zh": 0.6}


def say_caption(spec: CaptionSpec, speaker: Speaker, request: bool = False) -> str:
    """Puts a caption into words.

    Args:
        spec: what to say; at most one relation, from its first entry to its second, and a place of all entries or of none.
        speaker: whose words are used.
        request: whether it must be an order to draw, as in a chat; otherwise a bare caption will do too.
    """
    language = speaker.language
    x, is_clause = _content(spec, speaker, allow_clause=language == "zh" or not request)
    frames = _REQUESTS if request else _CLAUSE_FRAMES if is_clause else _FRAMES
    frame = speaker.pick(frames[language])
    if is_clause and not request and (spec.background is not None or "，" in x):
        frame = "{x}"  # nothing goes well around two clauses
    if spec.background is not None:
        grounds = (_CLAUSE_ON_BACKGROUND if is_clause and not request else _ON_BACKGROUND)[language]
        if language == "zh" and is_clause and request:
            grounds = grounds[1:]
        elif frame[-1] in "片画":  # nothing but a phrase goes before the Chinese words for picture
            grounds = grounds[:1]
        x = speaker.pick(grounds).format(x=x, c=speaker.colour(spec.background))
    return speaker.sentence(frame.format(x=x))


def _content(spec: CaptionSpec, speaker: Speaker, allow_clause: bool) -> tuple[str, bool]:
    """The objects of a caption in words, and whether they make a clause."""
    language, place = speaker.language, spec.objects[0].place
    plain, clauses = (_RELATED, _RELATED_CLAUSES) if spec.relations else (_PLACED, _PLACED_CLAUSES)
    is_placed = bool(spec.relations) or place is not None
    by_sides = bool(spec.relations) and speaker.chance(_BY_SIDES_RATE)
    if language == "zh" and spec.relations:
        is_clause = True
    else:
        is_clause = is_placed and not by_sides and allow_clause and speaker.chance(_CLAUSE_RATES[language])
    bare = language == "zh" or not is_clause
    phrases = [speaker.some(thing.shape or "", thing.colour, thing.count, bare) for thing in spec.objects]
    if place is not None and len(phrases) > 1:
        pattern = _PLACED[language][0]
        placed = [
            pattern.format(a=phrase, p=speaker.place(thing.place or ""))
            for phrase, thing in zip(phrases, spec.objects)
        ]
        return speaker.listed(placed), False
    if not is_placed:
        return speaker.listed(phrases, speaker.pick(_CONJUNCTIONS[language]) if len(phrases) == 2 else None), False
    values = {"a": phrases[0], "b": phrases[-1]}
    if by_sides:
        return speaker.pick(_BY_SIDES[language][spec.relations[0][1]]).format(**values), is_clause
    if spec.relations:
        values["d"] = speaker.pick(DIRECTION_WORDS[language][spec.relations[0][1]])
    else:
        values["p"] = speaker.place(place or "")
    return speaker.pick((clauses if is_clause else plain)[language]).format(**values), is_clause
