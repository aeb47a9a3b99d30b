"""Editing rows in ImgEdit's applicable categories: an instruction, and exactly what it makes of a picture."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass

from .geometry import CELLS, DIRECTIONS, SIDES, is_at
from .palette import BACKGROUNDS, COLOURS
from .phrases import Speaker
from .scene import MAX_OBJECTS, Scene, SceneObject, random_scene
from .shapes import SHAPES
from .specs import EditSpec, Selector
from .splits import Combination
from .words import DIRECTION_WORDS, PLACE_WORDS

Slot = tuple[int, int]
Where = tuple[str | None, str | None, Selector | None]  # place, direction, anchor


@dataclass(frozen=True)
class EditPlan:
    """An edit before it is put into words.

    Args:
        scene: the source.
        target: what it becomes; unchanged objects stay in their slots.
        spec: what is to be done.
        main: the combinations that it is about, see `splits`.
    """

    scene: Scene
    target: Scene
    spec: EditSpec
    main: tuple[Combination, ...]


def plan_edit(
    rng: random.Random,
    operation: str,
    size: tuple[int, int] | None = None,
    max_objects: int = MAX_OBJECTS,
    min_objects: int = 1,
) -> EditPlan:
    """Draws a source and an edit of it, one of `splits.OPERATIONS`; the instruction fits one object only.

    Args:
        rng: source of randomness.
        operation: what is done.
        size: `(height, width)` in pixels; one of `scene.SIZES` if None.
        max_objects: of both pictures, at most as many as there are slots.
        min_objects: of the source, at least.
    """
    fewest, most = {"add": (1, max_objects - 1), "remove": (2, max_objects)}.get(operation, (1, max_objects))
    while True:
        plan = _PLANNERS[operation](rng, random_scene(rng, size, rng.randint(max(fewest, min_objects), most)))
        if plan is not None:
            return plan


def plan_edit_of(rng: random.Random, operation: str, scene: Scene) -> EditPlan | None:
    """An edit of a picture that is there already; None if chance led to one that this picture does not allow."""
    if not scene.objects or (operation == "remove" and len(scene.objects) < 2):
        return None
    return _PLANNERS[operation](rng, scene)


def _select(rng: random.Random, scene: Scene, thing: SceneObject) -> Selector | None:
    """A name that fits this object only: its shape, or shape and colour; None if there is none."""
    alike = [other for other in scene.objects if other.shape == thing.shape]
    if sum(other.colour == thing.colour for other in alike) > 1:
        return None
    return Selector(thing.shape, None if len(alike) == 1 and rng.random() < 0.4 else thing.colour)


def _pick(rng: random.Random, scene: Scene) -> tuple[SceneObject, Selector] | None:
    """A random object that can be named, and its name (the only object of a picture needs none)."""
    if len(scene.objects) == 1 and rng.random() < 0.3:
        return scene.objects[0], Selector()
    for thing in rng.sample(scene.objects, len(scene.objects)):
        selector = _select(rng, scene, thing)
        if selector is not None:
            return thing, selector
    return None


def _with(scene: Scene, old: SceneObject | None, new: SceneObject | None) -> Scene:
    """The scene with one object exchanged; None where there is none before or after."""
    kept = tuple(thing for thing in scene.objects if thing != old)
    return dataclasses.replace(scene, objects=kept if new is None else (*kept, new))


def _plan_recolour(rng: random.Random, scene: Scene) -> EditPlan | None:
    picked = _pick(rng, scene)
    if picked is None:
        return None
    thing, selector = picked
    colour = rng.choice([name for name in COLOURS if name != thing.colour])
    target = _with(scene, thing, dataclasses.replace(thing, colour=colour))
    main = (Combination(thing.shape, colour, "recolour"),)
    return EditPlan(scene, target, EditSpec("recolour", selector, colour=colour), main)


def _plan_remove(rng: random.Random, scene: Scene) -> EditPlan | None:
    picked = _pick(rng, scene)
    if picked is None:
        return None
    thing, selector = picked
    main = (Combination(thing.shape, thing.colour, "remove"),)
    return EditPlan(scene, _with(scene, thing, None), EditSpec("remove", selector), main)


def _plan_replace(rng: random.Random, scene: Scene) -> EditPlan | None:
    picked = _pick(rng, scene)
    if picked is None:
        return None
    thing, selector = picked
    shape = rng.choice([name for name in SHAPES if name != thing.shape])
    colour = rng.choice(COLOURS) if rng.random() < 0.6 else None
    new = dataclasses.replace(thing, shape=shape, colour=colour or thing.colour)
    spec = EditSpec("replace", selector, shape=shape, colour=colour)
    return EditPlan(scene, _with(scene, thing, new), spec, (Combination(shape, new.colour, "replace"),))


def _plan_background(rng: random.Random, scene: Scene) -> EditPlan | None:
    background = rng.choice([name for name in BACKGROUNDS if name != scene.background])
    main = tuple(Combination(thing.shape, thing.colour, "background") for thing in scene.objects)
    target = dataclasses.replace(scene, background=background)
    return EditPlan(scene, target, EditSpec("background", background=background), main)


def _plan_add(rng: random.Random, scene: Scene) -> EditPlan | None:
    shape, colour = rng.choice(SHAPES), rng.choice(COLOURS)
    anywhere: Where = (None, None, None)
    where = _choose_where(rng, scene, None) if rng.random() < 0.55 else anywhere
    if where is None:
        return None
    slot = rng.choice(_fitting(scene, where))
    place, direction, anchor = where
    spec = EditSpec("add", shape=shape, colour=colour, place=place, direction=direction, anchor=anchor)
    target = _with(scene, None, SceneObject(*slot, shape, colour))
    return EditPlan(scene, target, spec, (Combination(shape, colour, "add"),))


def _plan_move(rng: random.Random, scene: Scene) -> EditPlan | None:
    picked = _pick(rng, scene)
    if picked is None:
        return None
    thing, selector = picked
    where = _choose_where(rng, scene, thing)
    if where is None:
        return None
    # of several fitting slots the nearest is meant, so that as little as possible changes
    row, col = min(_fitting(scene, where), key=lambda slot: abs(slot[0] - thing.row) + abs(slot[1] - thing.col))
    place, direction, anchor = where
    spec = EditSpec("move", selector, place=place, direction=direction, anchor=anchor)
    target = _with(scene, thing, dataclasses.replace(thing, row=row, col=col))
    return EditPlan(scene, target, spec, (Combination(thing.shape, thing.colour, "move"),))


def settle(plan: EditPlan) -> EditPlan:
    """The same edit, with the object that is moved or added in the first slot that fits, in reading order.

    Where several slots fit, the data set moves to the nearest and adds at random: the first is a sum over two pictures,
    the second a coin toss at every slot. A lesson is learned sooner if it has one answer that can be told when it comes.
    """
    spec = plan.spec
    if spec.operation not in ("add", "move") or spec.anchor is not None:
        return plan
    thing = next(thing for thing in plan.target.objects if thing not in plan.scene.objects)
    row, col = _fitting(plan.scene, (spec.place, spec.direction, spec.anchor))[0]
    moved = dataclasses.replace(thing, row=row, col=col)
    return dataclasses.replace(plan, target=_with(plan.target, thing, moved))


def _choose_where(rng: random.Random, scene: Scene, moved: SceneObject | None) -> Where | None:
    """A place or direction where there is a free slot and the moved object is not yet; None if there is none."""
    options: list[Where] = []
    anchors = [thing for thing in scene.objects if thing != moved]
    if anchors and rng.random() < 0.4:
        anchor = rng.choice(anchors)
        selector = _select(rng, scene, anchor)
        options = [(None, direction, selector) for direction in DIRECTIONS if selector is not None]
    else:
        options = [(place, None, None) for place in CELLS + (SIDES if rng.random() < 0.5 else ())]
    if moved is not None:
        options = [where for where in options if not _is_there(scene, where, (moved.row, moved.col))]
    options = [where for where in options if _fitting(scene, where)]
    return rng.choice(options) if options else None


def _fitting(scene: Scene, where: Where) -> list[Slot]:
    """The free slots that fit; beside an anchor only the nearest in its row or column."""
    _, direction, anchor = where
    slots = [slot for slot in scene.free_slots() if _is_there(scene, where, slot)]
    if anchor is None:
        return slots
    thing = anchor.pick(scene)
    sideways = direction in ("left_of", "right_of")
    aligned = [slot for slot in slots if (slot[0] == thing.row if sideways else slot[1] == thing.col)]
    return sorted(aligned, key=lambda slot: abs(slot[0] - thing.row) + abs(slot[1] - thing.col))[:1]


def _is_there(scene: Scene, where: Where, slot: Slot) -> bool:
    place, direction, anchor = where
    if place is not None:
        return is_at(place, slot, (scene.rows, scene.cols))
    if anchor is None or direction is None:
        return True
    thing = anchor.pick(scene)
    return {
        "left_of": slot[1] < thing.col,
        "right_of": slot[1] > thing.col,
        "above": slot[0] < thing.row,
        "below": slot[0] > thing.row,
    }[direction]


_PLANNERS = {
    "recolour": _plan_recolour,
    "add": _plan_add,
    "remove": _plan_remove,
    "replace": _plan_replace,
    "move": _plan_move,
    "background": _plan_background,
}

# ------------------------------------------------------------------------------------------------------------- words

# {x} is the object, {y} a new one, {c} a colour, {p} where something is, {q} where it goes
_TEMPLATES = {
    "en": {
        "recolour": (
            "make {x} {c}", "make {x} {c}", "change {x} to {c}", "turn {x} {c}", "paint {x} {c}", "colour {x} {c}",
            "recolour {x} {c}", "change the colour of {x} to {c}", "{x} should be {c}",
        ),
        "add": ("add {y}", "add {y}", "put {y} in the picture", "insert {y}", "draw {y} in the picture"),
        "add_there": ("add {y} {p}", "add {y} {p}", "put {y} {p}", "insert {y} {p}", "draw {y} {p}"),
        "remove": ("remove {x}", "remove {x}", "delete {x}", "erase {x}", "take {x} away", "get rid of {x}"),
        "replace": (
            "replace {x} with {y}", "replace {x} with {y}", "swap {x} for {y}", "turn {x} into {y}",
            "change {x} into {y}",
        ),
        "reshape": ("turn {x} into {y}", "turn {x} into {y}", "change {x} into {y}", "change {x} to {y}"),
        "move": ("move {x} {q}", "move {x} {q}", "put {x} {p}", "place {x} {p}"),
        "background": (
            "make the background {c}", "make the background {c}", "change the background to {c}",
            "turn the background {c}", "paint the background {c}", "change the colour of the background to {c}",
            "use a {c} background", "the background should be {c}",
        ),
    },
    "zh": {
        "recolour": (
            "把{x}变成{c}", "把{x}变成{c}", "把{x}改成{c}", "将{x}改为{c}", "把{x}涂成{c}", "把{x}的颜色改成{c}",
            "将{x}变为{c}", "让{x}变成{c}",
        ),
        "add": ("加上{y}", "添加{y}", "增加{y}", "在图中添加{y}", "在图中加上{y}", "画上{y}"),
        "add_there": ("在{p}添加{y}", "在{p}加上{y}", "在{p}增加{y}", "在{p}画上{y}"),
        "remove": ("去掉{x}", "删除{x}", "移除{x}", "把{x}去掉", "把{x}删除", "将{x}移除", "擦掉{x}"),
        "replace": ("把{x}换成{y}", "把{x}换成{y}", "将{x}替换为{y}", "用{y}替换{x}", "把{x}变成{y}"),
        "reshape": ("把{x}变成{y}", "把{x}变成{y}", "把{x}改成{y}", "将{x}变为{y}"),
        "move": ("把{x}移到{p}", "把{x}移到{p}", "将{x}移动到{p}", "把{x}放到{p}", "把{x}移动到{p}"),
        "background": (
            "把背景变成{c}", "把背景变成{c}", "把背景改成{c}", "将背景改为{c}", "把背景的颜色改成{c}", "换成{c}背景",
            "让背景变成{c}", "将背景变为{c}",
        ),
    },
}  # fmt: skip
# The same as something new and the removal of the old, for lessons; see `lessons.make_selection_lesson`.
_AS_REMOVAL = {
    "en": {
        "recolour": ("make it {c}, remove {x}", "make it {c} and remove {x}", "paint it {c}, remove {x}"),
        "replace": ("put {y} there, remove {x}", "draw {y} there and remove {x}", "draw {y} there, delete {x}"),
        "move": ("put it {p}, remove {x}", "place it {p} and remove {x}"),
    },
    "zh": {
        "recolour": ("变成{c}，去掉{x}", "涂成{c}，移除{x}", "改成{c}，删除{x}"),
        "replace": ("画上{y}，去掉{x}", "换成{y}，移除{x}", "变成{y}，删除{x}"),
        "move": ("放到{p}，去掉{x}", "移到{p}，移除{x}"),
    },
}  # fmt: skip
# The same as the removal of the old and something new, each named in full, for lessons; see `lessons.make_two_step_lesson`.
_IN_TWO_STEPS = {
    "en": {
        "there": ("remove {x} and draw {y} there", "remove {x}, put {y} there", "draw {y} there and remove {x}"),
        "elsewhere": ("remove {x} and add {y} {p}", "remove {x}, put {y} {p}", "add {y} {p} and remove {x}"),
    },
    "zh": {
        "there": ("去掉{x}，在那里画上{y}", "删除{x}，换上{y}", "在那里画上{y}，去掉{x}"),
        "elsewhere": ("去掉{x}，在{p}加上{y}", "删除{x}，在{p}画上{y}", "在{p}加上{y}，去掉{x}"),
    },
}  # fmt: skip
_ONLY_OBJECT = {"en": ("it", "the object", "it"), "zh": ("它", "物体", "图中的物体")}
_POLITE = {"en": "please {}", "zh": "请{}"}


def say_edit(spec: EditSpec, speaker: Speaker, as_removal: bool = False) -> str:
    """Puts an instruction into words.

    Args:
        spec: what to say; an object is named by its shape, or by shape and colour, and one without either is "it".
        speaker: whose words are used.
        as_removal: say it as something new and the removal of the old, in this order, where there are such words.
    """
    key, values = spec.operation, {}
    if spec.object is not None:
        values["x"] = _name(spec.object, speaker)
    values |= _say_where(spec, speaker)
    if key == "add" and "p" in values:
        key = "add_there"
    if key == "replace" and spec.colour is None:
        key = "reshape"
    if spec.shape is not None:
        values["y"] = speaker.some(spec.shape, spec.colour)
    elif spec.background is not None or spec.colour is not None:
        values["c"] = speaker.colour(spec.background or spec.colour or "")
    templates = _TEMPLATES[speaker.language][key]
    if as_removal:
        templates = _AS_REMOVAL[speaker.language].get(spec.operation, templates)
    text = speaker.pick(templates).format(**values)
    if speaker.chance(0.15) and "should" not in text:
        text = _POLITE[speaker.language].format(text)
    return speaker.sentence(text)


def say_in_two_steps(plan: EditPlan, speaker: Speaker) -> str:
    """Puts a change of one object into words as the removal of what it was and something new, each named in full."""
    new, _ = changed_objects(plan)
    assert plan.spec.object is not None
    values = _say_where(plan.spec, speaker)
    values |= {"x": _name(plan.spec.object, speaker), "y": speaker.some(new.shape, new.colour)}
    templates = _IN_TWO_STEPS[speaker.language]["elsewhere" if "p" in values else "there"]
    return speaker.sentence(speaker.pick(templates).format(**values))


def changed_objects(plan: EditPlan) -> tuple[SceneObject, SceneObject]:
    """What the changed object of an edit is afterwards, and what it was."""
    new = next(thing for thing in plan.target.objects if thing not in plan.scene.objects)
    return new, next(thing for thing in plan.scene.objects if thing not in plan.target.objects)


def _say_where(spec: EditSpec, speaker: Speaker) -> dict[str, str]:
    """Where something is, and where it goes, if the edit says so."""
    if spec.place is not None:
        return {"p": speaker.place(spec.place), "q": f"to the {PLACE_WORDS['en'][spec.place][0]}"}
    if spec.direction is None or spec.anchor is None:
        return {}
    words, anchor = speaker.pick(DIRECTION_WORDS[speaker.language][spec.direction]), _name(spec.anchor, speaker)
    return dict.fromkeys("pq", f"{words} {anchor}" if speaker.language == "en" else f"{anchor}的{words}")


def _name(selector: Selector, speaker: Speaker) -> str:
    if selector.shape is None:
        return speaker.pick(_ONLY_OBJECT[speaker.language])
    return speaker.the(selector.shape, selector.colour)
