"""Rows about a picture: what is asked, and the one right answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .captions import aligned_slots
from .geometry import DIRECTIONS, INVERSE, cell
from .palette import COLOURS
from .phrases import Speaker, describe
from .scene import MAX_OBJECTS, Scene, SceneObject, random_scene
from .shapes import SHAPES
from .specs import AnswerSpec, ObjectSpec
from .splits import Combination
from .words import DIRECTION_WORDS, PLACE_WORDS, YES_NO_WORDS

Say = Callable[[Speaker], str]


@dataclass(frozen=True)
class QuestionPlan:
    """A question before it is put into words.

    Args:
        scene: the picture.
        spec: the answer.
        main: the combinations that it is about, see `splits`.
        ask: puts the question into a speaker's words.
    """

    scene: Scene
    spec: AnswerSpec
    main: tuple[Combination, ...]
    ask: Say


def plan_question(rng: random.Random, category: str) -> QuestionPlan:
    """Draws a picture and a question of a category, one of `splits.QUESTIONS`."""
    scene = random_scene(rng)
    return _PLANNERS[category](rng, scene)


def plan_question_about(rng: random.Random, category: str, scene: Scene) -> QuestionPlan | None:
    """Draws a question of a category about a picture that is there already, for the later turns of a conversation.

    Returns:
        The plan, or None if chance led to a question that this picture does not answer; another try may find one.
    """
    if category == "how_many":
        return _count_in(rng, scene)
    if category in ("where", "yes_no") and rng.random() < 0.3:
        found = _aligned_pair(rng, scene)
        return None if found is None else _DIRECTION_PLANS[category](rng, scene, *found)
    plan = _PLANNERS[category](rng, scene)
    return plan if plan.scene == scene else None


def answer(spec: AnswerSpec, scene: Scene, language: str) -> str:
    """The answer in the words that the data set uses: "red", "two", "top left", "a red circle", "yes".

    Args:
        spec: what to answer.
        scene: the picture; a complete list of its objects is its description.
        language: one of `words.LANGUAGES`.
    """
    speaker, value = Speaker(language), str(spec.value)
    if spec.kind == "objects" and spec.background is not None:
        return describe(scene, language)
    if spec.kind == "objects":
        return speaker.listed([speaker.some(thing.shape or "", thing.colour, thing.count) for thing in spec.objects])
    if spec.kind == "number":
        return speaker.number(int(value)) + ("" if language == "en" else "个")
    if spec.kind in YES_NO_WORDS[language]:
        return YES_NO_WORDS[language][spec.kind][value]
    if spec.kind == "place":
        return PLACE_WORDS[language][value][0]
    if spec.kind == "direction":
        return DIRECTION_WORDS[language][value][0].removesuffix(" of")
    return speaker.some(value) if spec.kind == "shape" else speaker.colour(value)


# ------------------------------------------------------------------------------------------------------------- plans


def _naming(rng: random.Random, scene: Scene, thing: SceneObject) -> tuple[str, str | None] | None:
    """How an object can be named so that no other is meant: with its colour, or by its shape alone; None if not at all."""
    alike = [other for other in scene.objects if other.shape == thing.shape]
    if sum(other.colour == thing.colour for other in alike) > 1:
        return None
    return thing.shape, None if len(alike) == 1 and rng.random() < 0.4 else thing.colour


def _unique(rng: random.Random, scene: Scene) -> tuple[SceneObject, tuple[str, str | None]] | None:
    """A random object of the scene that can be named, and its name."""
    for thing in rng.sample(scene.objects, len(scene.objects)):
        name = _naming(rng, scene, thing)
        if name is not None:
            return thing, name
    return None


def _template(templates: Mapping[str, tuple[str, ...]], **values: Say) -> Say:
    """Words later: a template of the speaker's language, filled with what the values say."""

    def say(speaker: Speaker) -> str:
        template = speaker.pick(templates[speaker.language])
        return template.format(**{key: value(speaker) for key, value in values.items() if f"{{{key}}}" in template})

    return say


def _plan_what(rng: random.Random, scene: Scene) -> QuestionPlan:
    thing = rng.choice(scene.objects)
    main: tuple[Combination, ...] = (Combination(thing.shape, thing.colour, "what"),)
    grid = (scene.rows, scene.cols)
    place = cell((thing.row, thing.col), grid)
    if (
        len(scene.objects) > 1
        and sum(other.colour == thing.colour for other in scene.objects) == 1
        and rng.random() < 0.5
    ):
        ask = _template(_WHAT_SHAPE, c=lambda speaker: speaker.colour(thing.colour))
        return QuestionPlan(scene, AnswerSpec("shape", thing.shape), main, ask)
    if len(scene.objects) > 1 and rng.random() < 0.4:
        scene = Scene(scene.height, scene.width, scene.background, (thing,))
    alone_there = sum(cell((other.row, other.col), grid) == place for other in scene.objects) == 1
    if len(scene.objects) > 1 and alone_there and rng.random() < 0.6:
        spec = AnswerSpec("objects", objects=(ObjectSpec(thing.shape, thing.colour),))
        return QuestionPlan(scene, spec, main, _template(_WHAT_AT, p=lambda speaker: speaker.place(place)))
    main = tuple(Combination(other.shape, other.colour, "what") for other in scene.objects)
    return QuestionPlan(scene, AnswerSpec("objects", objects=_grouped(scene)), main, _template(_WHAT))


def _plan_colour(rng: random.Random, scene: Scene) -> QuestionPlan:
    if rng.random() < 0.2:
        main = tuple(Combination(thing.shape, scene.background, "which_colour") for thing in scene.objects)
        return QuestionPlan(scene, AnswerSpec("colour", scene.background), main, _template(_WHICH_BACKGROUND))
    thing = rng.choice(scene.objects)
    others = tuple(other for other in scene.objects if other is thing or other.shape != thing.shape)
    scene = Scene(scene.height, scene.width, scene.background, others)
    main = (Combination(thing.shape, thing.colour, "which_colour"),)
    spec = AnswerSpec("colour", thing.colour)
    return QuestionPlan(scene, spec, main, _template(_WHICH_COLOUR, x=lambda speaker: speaker.the(thing.shape)))


def _plan_number(rng: random.Random, scene: Scene) -> QuestionPlan:
    kind = rng.choices(("coloured", "shape", "all"), (0.45, 0.35, 0.2))[0]
    if kind == "all":
        main = tuple(Combination(thing.shape, thing.colour, "how_many") for thing in scene.objects)
        return QuestionPlan(scene, AnswerSpec("number", len(scene.objects)), main, _template(_HOW_MANY_OBJECTS))
    shape, colour = rng.choice(SHAPES), rng.choice(COLOURS)
    count = rng.choices(range(MAX_OBJECTS + 1), (0.1, 0.2, 0.25, 0.25, 0.2))[0]
    counted = [(shape, colour if kind == "coloured" else rng.choice(COLOURS)) for _ in range(count)]
    strangers = []
    for _ in range(rng.randint(0 if count else 1, MAX_OBJECTS - count)):
        other_shape, other_colour = rng.choice(SHAPES), rng.choice(COLOURS)
        if other_shape == shape and (kind == "shape" or other_colour == colour):
            other_shape = SHAPES[SHAPES.index(shape) - 1]
        strangers.append((other_shape, other_colour))
    slots = rng.sample(scene.slots(), count + len(strangers))
    objects = tuple(SceneObject(*slot, *name) for slot, name in zip(slots, counted + strangers))
    scene = Scene(scene.height, scene.width, scene.background, objects)
    main = tuple(Combination(*name, "how_many") for name in counted or [(shape, colour)])
    named = colour if kind == "coloured" else None
    ask = _template(_HOW_MANY, x=lambda speaker: speaker.kind(shape, named, 2))
    return QuestionPlan(scene, AnswerSpec("number", count), main, ask)


def _count_in(rng: random.Random, scene: Scene) -> QuestionPlan:
    """A question for a number about a given picture: of all objects, of a kind that is there, or of one that is not."""
    kind = rng.choices(("coloured", "shape", "all"), (0.45, 0.35, 0.2))[0]
    if kind == "all":
        main = tuple(Combination(thing.shape, thing.colour, "how_many") for thing in scene.objects)
        return QuestionPlan(scene, AnswerSpec("number", len(scene.objects)), main, _template(_HOW_MANY_OBJECTS))
    thing = rng.choice(scene.objects)
    shape, colour = (thing.shape, thing.colour) if rng.random() < 0.8 else _absent(rng, scene)
    counted = [
        other for other in scene.objects if other.shape == shape and (kind == "shape" or other.colour == colour)
    ]
    asked = [(other.shape, other.colour) for other in counted] or [(shape, colour)]
    main = tuple(Combination(*name, "how_many") for name in asked)
    named = colour if kind == "coloured" else None
    ask = _template(_HOW_MANY, x=lambda speaker: speaker.kind(shape, named, 2))
    return QuestionPlan(scene, AnswerSpec("number", len(counted)), main, ask)


def _aligned_pair(rng: random.Random, scene: Scene) -> tuple[SceneObject, SceneObject, str] | None:
    """Two objects of a picture in one row or column that can be named, and where the first lies from the second."""
    nameable = [thing for thing in scene.objects if _naming(rng, scene, thing) is not None]
    pairs = [
        (first, second, "left_of" if first.row == second.row else "above")
        for first in nameable
        for second in nameable
        if first < second and (first.row == second.row or first.col == second.col)
    ]
    return rng.choice(pairs) if pairs else None


def _plan_where(rng: random.Random, scene: Scene) -> QuestionPlan:
    if rng.random() < 0.35:
        scene, direction = _two_aligned(rng, scene)
        first, second = scene.objects
        return _plan_where_from(rng, scene, first, second, direction)
    found = _unique(rng, scene)
    if found is None:
        return _plan_where(rng, random_scene(rng, (scene.height, scene.width)))
    thing, name = found
    place = cell((thing.row, thing.col), (scene.rows, scene.cols))
    main = (Combination(thing.shape, thing.colour, "where"),)
    ask = _template(_WHERE, x=lambda speaker: speaker.the(*name))
    return QuestionPlan(scene, AnswerSpec("place", place), main, ask)


def _plan_where_from(
    rng: random.Random, scene: Scene, first: SceneObject, second: SceneObject, direction: str
) -> QuestionPlan:
    if rng.random() < 0.5:
        first, second, direction = second, first, INVERSE[direction]
    main = tuple(Combination(thing.shape, thing.colour, "where") for thing in (first, second))
    ask = _template(_WHERE_FROM, x=_named(rng, scene, first), y=_named(rng, scene, second))
    return QuestionPlan(scene, AnswerSpec("direction", direction), main, ask)


def _two_aligned(rng: random.Random, scene: Scene) -> tuple[Scene, str]:
    """A scene of two objects that differ in shape or colour, and where the first lies from the second."""
    direction = rng.choice(("left_of", "above"))  # reading order
    slots = aligned_slots(rng, scene, direction)
    shapes, colours = [rng.choice(SHAPES) for _ in slots], rng.sample(COLOURS, 2)
    objects = tuple(SceneObject(*slot, shape, colour) for slot, shape, colour in zip(slots, shapes, colours))
    return Scene(scene.height, scene.width, scene.background, objects), direction


def _named(rng: random.Random, scene: Scene, thing: SceneObject) -> Say:
    name = _naming(rng, scene, thing) or (thing.shape, thing.colour)
    return lambda speaker: speaker.the(*name)


def _plan_yes_no(rng: random.Random, scene: Scene) -> QuestionPlan:
    kind, yes = rng.choices(("exists", "colour", "direction"), (0.55, 0.2, 0.25))[0], rng.random() < 0.5
    spec = AnswerSpec("exists" if kind == "exists" else "yes_no", "yes" if yes else "no")
    if kind == "direction":
        scene, direction = _two_aligned(rng, scene)
        first, second = scene.objects
        return _plan_is_it_there(rng, scene, first, second, direction, yes)
    thing = rng.choice(scene.objects)
    if kind == "colour":
        others = tuple(other for other in scene.objects if other is thing or other.shape != thing.shape)
        scene = Scene(scene.height, scene.width, scene.background, others)
        colour = thing.colour if yes else rng.choice([name for name in COLOURS if name != thing.colour])
        main = tuple({Combination(thing.shape, name, "yes_no"): None for name in (colour, thing.colour)})
        ask = _template(
            _IS_IT_SO, x=lambda speaker: speaker.the(thing.shape), c=lambda speaker: speaker.colour(colour)
        )
        return QuestionPlan(scene, spec, main, ask)
    shape, colour = (thing.shape, thing.colour) if yes else _absent(rng, scene)
    ask = _template(_IS_THERE, x=lambda speaker: speaker.some(shape, colour, bare=speaker.language == "zh"))
    return QuestionPlan(scene, spec, (Combination(shape, colour, "yes_no"),), ask)


def _plan_is_it_there(
    rng: random.Random, scene: Scene, first: SceneObject, second: SceneObject, direction: str, yes: bool | None = None
) -> QuestionPlan:
    yes = rng.random() < 0.5 if yes is None else yes
    if not yes:
        direction = rng.choice([other for other in DIRECTIONS if other != direction])
    main = tuple(Combination(thing.shape, thing.colour, "yes_no") for thing in (first, second))
    words = _template({language: table[direction] for language, table in DIRECTION_WORDS.items()})
    ask = _template(_IS_IT_THERE, x=_named(rng, scene, first), y=_named(rng, scene, second), d=words)
    return QuestionPlan(scene, AnswerSpec("yes_no", "yes" if yes else "no"), main, ask)


def _absent(rng: random.Random, scene: Scene) -> tuple[str, str]:
    """Shape and colour that no object has together; mostly of parts that the picture does show."""
    present = {(thing.shape, thing.colour) for thing in scene.objects}
    while True:
        shape, colour = rng.choice(SHAPES), rng.choice(COLOURS)
        if rng.random() < 0.7:
            thing = rng.choice(scene.objects)
            shape, colour = rng.choice(((thing.shape, colour), (shape, thing.colour)))
        if (shape, colour) not in present:
            return shape, colour


def _plan_describe(rng: random.Random, scene: Scene) -> QuestionPlan:
    main = tuple(Combination(thing.shape, thing.colour, "describe") for thing in scene.objects)
    return QuestionPlan(scene, description_spec(scene), main, _template(_DESCRIBE))


def description_spec(scene: Scene) -> AnswerSpec:
    """What a complete description of a scene with at least one object must say."""
    return AnswerSpec("objects", objects=_grouped(scene), background=scene.background)


def _grouped(scene: Scene) -> tuple[ObjectSpec, ...]:
    """The objects in reading order, alike ones together."""
    return tuple(ObjectSpec(shape, colour, count) for (shape, colour), count in scene.counts().items())


_PLANNERS = {
    "what": _plan_what,
    "which_colour": _plan_colour,
    "how_many": _plan_number,
    "where": _plan_where,
    "yes_no": _plan_yes_no,
    "describe": _plan_describe,
}
_DIRECTION_PLANS = {"where": _plan_where_from, "yes_no": _plan_is_it_there}

# ------------------------------------------------------------------------------------------------------------- words

_WHAT = {
    "en": (
        "what is this?", "what is in the picture?", "what do you see?", "what is in the image?",
        "what does the picture show?", "what can you see in the picture?",
    ),
    "zh": ("这是什么？", "图中是什么？", "图中有什么？", "你看到了什么？", "图片里是什么？", "图片里有什么？"),
}  # fmt: skip
_WHAT_AT = {
    "en": ("what is {p}?", "what is {p} of the picture?", "which object is {p}?", "what do you see {p}?"),
    "zh": ("{p}是什么？", "{p}有什么？", "图片{p}是什么？", "图中{p}的物体是什么？"),
}
_WHAT_SHAPE = {
    "en": (
        "what shape is the {c} object?", "what is the shape of the {c} object?", "which shape is {c}?",
        "what shape is the {c} thing?",
    ),
    "zh": ("{c}的物体是什么形状？", "{c}的是什么形状？", "{c}物体的形状是什么？", "哪个形状是{c}的？"),
}  # fmt: skip
_WHICH_COLOUR = {
    "en": (
        "what colour is {x}?", "which colour is {x}?", "what is the colour of {x}?", "which colour does {x} have?",
        "tell me the colour of {x}",
    ),
    "zh": ("{x}是什么颜色？", "{x}是什么颜色的？", "{x}的颜色是什么？", "图中{x}是什么颜色？", "说出{x}的颜色"),
}  # fmt: skip
_WHICH_BACKGROUND = {
    "en": (
        "what colour is the background?",
        "which colour is the background?",
        "what is the colour of the background?",
    ),
    "zh": ("背景是什么颜色？", "背景的颜色是什么？", "图片的背景是什么颜色的？"),
}
_HOW_MANY = {
    "en": (
        "how many {x} are there?", "how many {x} are in the picture?", "how many {x} do you see?",
        "how many {x} can you see?", "count the {x}",
    ),
    "zh": ("有几个{x}？", "图中有几个{x}？", "有多少个{x}？", "图片里有多少个{x}？", "数一数{x}"),
}  # fmt: skip
_HOW_MANY_OBJECTS = {
    "en": ("how many objects are there?", "how many objects are in the picture?", "count the objects"),
    "zh": ("有几个物体？", "图中有几个物体？", "图中一共有多少个物体？", "数一数物体"),
}
_WHERE = {
    "en": ("where is {x}?", "where is {x} in the picture?", "where in the picture is {x}?", "in which place is {x}?"),
    "zh": ("{x}在哪里？", "{x}在图片的哪里？", "{x}在什么位置？", "图中{x}在哪里？"),
}
_WHERE_FROM = {
    "en": (
        "where is {x} relative to {y}?", "where is {x} as seen from {y}?", "on which side of {y} is {x}?",
        "in which direction from {y} is {x}?",
    ),
    "zh": ("{x}在{y}的哪边？", "{x}在{y}的什么方向？", "{x}在{y}的哪一边？", "相对于{y}，{x}在哪边？"),
}  # fmt: skip
_IS_THERE = {
    "en": ("is there {x}?", "is there {x} in the picture?", "do you see {x}?", "does the picture show {x}?"),
    "zh": ("有{x}吗？", "图中有{x}吗？", "图片里有{x}吗？", "有没有{x}？", "你看到{x}了吗？"),
}
_IS_IT_SO = {
    "en": ("is {x} {c}?", "is {x} in the picture {c}?", "is the colour of {x} {c}?"),
    "zh": ("{x}是{c}的吗？", "{x}是{c}吗？", "{x}的颜色是{c}吗？"),
}
_IS_IT_THERE = {
    "en": ("is {x} {d} {y}?", "is {x} {d} {y} in the picture?", "does {x} lie {d} {y}?"),
    "zh": ("{x}在{y}的{d}吗？", "{x}在{y}{d}吗？", "{x}是在{y}的{d}吗？"),
}
_DESCRIBE = {
    "en": (
        "describe the picture", "describe the image", "describe what you see", "what does the whole picture show?",
        "describe this picture in detail", "list all objects and the background", "tell me everything that you see",
    ),
    "zh": (
        "描述这张图片", "请描述图片", "描述你看到的一切", "详细描述这张图片", "说出所有物体和背景", "整张图片是什么样？",
    ),
}  # fmt: skip
