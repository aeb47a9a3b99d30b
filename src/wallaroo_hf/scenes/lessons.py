"""Lessons, for training only: small crowded pictures to begin with, later larger ones of what is learned last."""

from __future__ import annotations

import random
from collections.abc import Mapping

from .captions import CAPTION_CATEGORIES, CaptionPlan, plan_caption, plan_crowd, plan_placed, say_caption
from .chats import make_chat
from .edits import EditPlan, changed_objects, plan_edit, say_edit, say_in_two_steps, settle
from .phrases import Speaker
from .scene import MAX_OBJECTS, random_size
from .specs import EditSpec
from .splits import OPERATIONS, Combination, admits
from .tasks import Row, turn
from .words import LANGUAGES

SIZE = (64, 64)  # (height, width) in pixels: four slots
# how often each category comes, and how many objects a crowd has
_SMALL_SHARES = {"crowd": 0.6, **dict.fromkeys(CAPTION_CATEGORIES, 0.4 / len(CAPTION_CATEGORIES))}
_SMALL_COUNTS = {2: 0.15, 3: 0.3, 4: 0.55}
_LARGE_SHARES = {
    "crowd": 0.3,
    "position": 0.25,
    "counting": 0.2,
    "colour_attribution": 0.1,
    "colours": 0.07,
    "two_object": 0.05,
    "single_object": 0.03,
}
_LARGE_COUNTS = {2: 0.2, 3: 0.4, 4: 0.4}
_POSITION_SHARES = {"position": 0.75, "counting": 0.15, "crowd": 0.1}
_PLACE_SHARES = {"placed": 1.0}
_PLACE_COUNTS = {1: 0.2, 2: 0.4, 3: 0.3, 4: 0.1}
_SMALL_RATE = 0.3  # of position lessons
_CROWD = 6  # objects in a large picture to edit, at most
_LARGE_OPERATIONS = {"recolour": 1.5, "replace": 1.5, "move": 1.5, "remove": 1.2, "add": 0.8, "background": 0.5}
_SELECTION_OPERATIONS = {"recolour": 3.0, "replace": 3.0, "move": 2.0, "add": 0.5, "remove": 0.3}
_HARD_OPERATIONS = {"move": 4.0, "replace": 3.0, "add": 1.5, "recolour": 1.0, "remove": 0.5}
_DESTINATION_OPERATIONS = {"move": 3.0, "add": 2.0}
_CHAT_EDIT_RATE = 0.62  # the others draw
_AS_REMOVAL_RATE = 0.3
_TWO_STEPS = {"recolour": 1.0, "replace": 1.0, "move": 1.0}
_AS_REPLACEMENT_RATE = 0.4  # of recolourings among them
_MAX_TRIES = 10_000


def make_lesson(seed: int, index: int, size: tuple[int, int] = SIZE) -> Row:
    """One text-to-image row of the split "train", small, without its picture: equal arguments give equal rows.

    What is hard to learn about drawing scenes is which words a code has to follow, and only the first code of each object
    tells. In a scene of nine slots with two objects that is one code of eighteen; here it is up to one of four, and there
    is less to guess about where it comes.

    Args:
        seed: the data set's seed.
        index: the row's index; the row depends on no other.
        size: `(height, width)` in pixels.

    Returns:
        A row as of [`tasks.make_row`] with the task "generation"; `category` is "crowd" or one of GenEval's.
    """
    return _lesson(random.Random(f"{seed}/{index}/lesson"), _SMALL_SHARES, _SMALL_COUNTS, size)


def make_large_lesson(seed: int, index: int) -> Row:
    """One text-to-image row of the split "train", of one of `scene.SIZES`, without its picture; see [`make_lesson`].

    Crowds, counting and positions come more often than in the data set: where the next object comes, and which, has to
    follow from what is drawn already.
    """
    return _lesson(random.Random(f"{seed}/{index}/large-lesson"), _LARGE_SHARES, _LARGE_COUNTS, None)


def make_position_lesson(seed: int, index: int) -> Row:
    """One text-to-image row of the split "train", small or of one of `scene.SIZES`, mostly of the category "position".

    In all other captions the objects come in the order in which they are named; here the words decide which comes first.
    """
    rng = random.Random(f"{seed}/{index}/position-lesson")
    size = SIZE if rng.random() < _SMALL_RATE else random_size(rng)
    return _lesson(rng, _POSITION_SHARES, _LARGE_COUNTS, size)


def make_place_lesson(seed: int, index: int) -> Row:
    """One text-to-image row of the split "train", of one of `scene.SIZES`, whose caption says where each object is.

    What place is meant by which words is said once in a caption of a position, and once in an edit; here once an object.
    """
    return _lesson(random.Random(f"{seed}/{index}/place-lesson"), _PLACE_SHARES, _PLACE_COUNTS, None)


def _lesson(
    rng: random.Random, shares: Mapping[str, float], counts: Mapping[int, float], size: tuple[int, int] | None
) -> Row:
    language = rng.choice(LANGUAGES)
    category = rng.choices(list(shares), list(shares.values()))[0]
    count = rng.choices(list(counts), list(counts.values()))[0]
    for _ in range(_MAX_TRIES):
        chosen = size or random_size(rng)
        if category in ("crowd", "placed"):
            plan = (plan_crowd if category == "crowd" else plan_placed)(rng, chosen, count)
        else:
            plan = plan_caption(rng, category, size=chosen)
        if admits("train", plan.main, plan.others):
            break
    else:
        raise RuntimeError(f"no lesson of the category {category!r} was found")
    return caption_row(plan, category, Speaker(language, rng))


def caption_row(plan: CaptionPlan, category: str, speaker: Speaker) -> Row:
    """A text-to-image row, without its picture, of what a caption says.

    Args:
        plan: what it says.
        category: how it is grouped.
        speaker: whose words are used.
    """
    caption = say_caption(plan.spec, speaker)
    return {
        "messages": [turn("user", caption), turn("assistant", None)],
        "task": "generation",
        "category": category,
        "language": speaker.language,
        "prompt": caption,
        "scene": None,
        "target_scene": plan.scene.to_dict(),
        "spec": plan.spec.to_dict(),
        "combinations": {"main": [list(one) for one in plan.main], "others": [list(one) for one in plan.others]},
    }


def make_edit_lesson(seed: int, index: int) -> Row:
    """One editing row of the split "train", of 64x64 pixels, without its pictures; see [`make_lesson`].

    With four slots there is less to keep apart, and the way from a place in the source to the same place in the target is
    short.
    """
    shares = dict.fromkeys(OPERATIONS, 1.0)
    return _edit_lesson(random.Random(f"{seed}/{index}/edit-lesson"), shares, SIZE, MAX_OBJECTS)


def make_large_edit_lesson(seed: int, index: int) -> Row:
    """One editing row of the split "train", of one of `scene.SIZES` and with more objects than the data set has.

    What is hard about keeping objects is where they are, and every object teaches it. Operations that name one object and
    make another of it come more often; new backgrounds, which are learned first, less often.
    """
    rng = random.Random(f"{seed}/{index}/large-edit-lesson")
    return _edit_lesson(rng, _LARGE_OPERATIONS, random_size(rng), _CROWD)


def make_selection_lesson(seed: int, index: int) -> Row:
    """One editing row of the split "train", of one of `scene.SIZES`, mostly about one of two to four objects.

    What is learned last about edits is which of several objects is meant when another is made of it. Removing needs the
    same choice and is learned long before; but a model that recolours any object with the same probability has nothing to
    gain from finding the right one, nor from acting on what it found, before it does both. So a part of these edits is said
    in words of which it knows the end, "make it blue, remove the red circle": the right object is found already, and what
    to do with it is all that is left to learn.
    """
    rng = random.Random(f"{seed}/{index}/selection-lesson")
    return _edit_lesson(rng, _SELECTION_OPERATIONS, random_size(rng), MAX_OBJECTS, 2, _AS_REMOVAL_RATE)


def make_hard_edit_lesson(seed: int, index: int) -> Row:
    """One editing row of the split "train", of one of `scene.SIZES`: moves and replacements among two to four objects.

    What moves goes to the first place that fits, see [`wallaroo_hf.scenes.edits.settle`].
    """
    rng = random.Random(f"{seed}/{index}/hard-edit-lesson")
    return _edit_lesson(rng, _HARD_OPERATIONS, random_size(rng), MAX_OBJECTS, 2, settled=True)


def make_destination_lesson(seed: int, index: int) -> Row:
    """One editing row of the split "train", of one of `scene.SIZES`, in which one of at most two objects is put somewhere.

    Moves are learned last, and what they lack is where the object goes, with one object as with four. Here nothing else
    is asked, and what is put somewhere goes to the first place that fits.
    """
    rng = random.Random(f"{seed}/{index}/destination-lesson")
    while True:
        row = _edit_lesson(rng, _DESTINATION_OPERATIONS, random_size(rng), 2, settled=True)
        if row["spec"].get("place") or row["spec"].get("anchor"):
            return row


def make_chat_lesson(seed: int, index: int) -> Row:
    """One chat of the split "train" in which a picture is there already when it ends in an edit or in another drawing."""
    rng = random.Random(f"{seed}/{index}/chat-lesson")
    while True:
        kind = "edit" if rng.random() < _CHAT_EDIT_RATE else "draw"
        row = make_chat(rng.getrandbits(32), index, "train", kind, settled=True)
        if row["shown"]:
            return row


def _edit_lesson(
    rng: random.Random,
    shares: Mapping[str, float],
    size: tuple[int, int],
    max_objects: int,
    min_objects: int = 1,
    as_removal_rate: float = 0.0,
    settled: bool = False,
) -> Row:
    language, operation = rng.choice(LANGUAGES), rng.choices(list(shares), list(shares.values()))[0]
    for _ in range(_MAX_TRIES):
        plan = plan_edit(rng, operation, size, max_objects, min_objects)
        if admits("train", plan.main):
            break
    else:
        raise RuntimeError(f"no lesson of the operation {operation!r} was found")
    plan = settle(plan) if settled else plan
    as_removal = as_removal_rate > 0 and rng.random() < as_removal_rate
    return edit_row(plan, say_edit(plan.spec, Speaker(language, rng), as_removal), language, plan.main)


def make_two_step_lesson(seed: int, index: int) -> Row:
    """One editing row of the split "train" in which an object changes in words of other operations.

    "Make the star orange" is never said in training if that is held out, and no other operation makes a star orange
    where it stands: not only these words are new in a test, the change in the picture is as well, and a small model
    learns that it never happens. So here the same changes are said as a removal and something new ("remove the star and
    draw an orange star there"), or a recolouring as a replacement; the split admits them as what they are said to be.

    Raises:
        RuntimeError: if no lesson turned up; that does not happen.
    """
    rng = random.Random(f"{seed}/{index}/two-step-lesson")
    language, operation = rng.choice(LANGUAGES), rng.choices(list(_TWO_STEPS), list(_TWO_STEPS.values()))[0]
    for _ in range(_MAX_TRIES):
        plan = plan_edit(rng, operation, random_size(rng))
        new, old = changed_objects(plan)
        as_replacement = operation == "recolour" and rng.random() < _AS_REPLACEMENT_RATE
        main: tuple[Combination, ...] = (Combination(new.shape, new.colour, "replace"),)
        if not as_replacement:
            main = (Combination(new.shape, new.colour, "add"), Combination(old.shape, old.colour, "remove"))
        if admits("train", main):
            break
    else:
        raise RuntimeError(f"no lesson of the operation {operation!r} was found")
    speaker = Speaker(language, rng)
    spec = EditSpec("replace", plan.spec.object, shape=new.shape, colour=new.colour)
    words = say_edit(spec, speaker) if as_replacement else say_in_two_steps(plan, speaker)
    return edit_row(plan, words, language, main)


def edit_row(plan: EditPlan, words: str, language: str, main: tuple[Combination, ...]) -> Row:
    """An editing row, without its pictures.

    Args:
        plan: what is done.
        words: how it is said.
        language: of the words.
        main: the combinations that it is about, see `splits`.
    """
    return {
        "messages": [turn("user", None, words), turn("assistant", None)],
        "task": "editing",
        "category": plan.spec.operation,
        "language": language,
        "prompt": words,
        "scene": plan.scene.to_dict(),
        "target_scene": plan.target.to_dict(),
        "spec": plan.spec.to_dict(),
        "combinations": {"main": [list(one) for one in main], "others": []},
    }
