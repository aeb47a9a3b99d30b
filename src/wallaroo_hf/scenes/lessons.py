"""Small crowded pictures to begin with: more named objects per image token, for training only."""

from __future__ import annotations

import random

from .captions import CAPTION_CATEGORIES, plan_caption, plan_crowd, say_caption
from .edits import plan_edit, say_edit
from .phrases import Speaker
from .splits import OPERATIONS, admits
from .tasks import Row, turn
from .words import LANGUAGES

SIZE = (64, 64)  # (height, width) in pixels: four slots
_CROWD_RATE = 0.6
_MAX_TRIES = 10_000


def make_lesson(seed: int, index: int, size: tuple[int, int] = SIZE) -> Row:
    """One text-to-image row of the split "train", of 64x64 pixels, without its picture: equal arguments give equal rows.

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
    rng = random.Random(f"{seed}/{index}/lesson")
    language = rng.choice(LANGUAGES)
    category = "crowd" if rng.random() < _CROWD_RATE else rng.choice(CAPTION_CATEGORIES)
    count = rng.choices((2, 3, 4), (0.15, 0.3, 0.55))[0]
    for _ in range(_MAX_TRIES):
        plan = plan_crowd(rng, size, count) if category == "crowd" else plan_caption(rng, category, size=size)
        if admits("train", plan.main, plan.others):
            break
    else:
        raise RuntimeError(f"no lesson of the category {category!r} was found")
    caption = say_caption(plan.spec, Speaker(language, rng))
    return {
        "messages": [turn("user", caption), turn("assistant", None)],
        "task": "generation",
        "category": category,
        "language": language,
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
    rng = random.Random(f"{seed}/{index}/edit-lesson")
    language, operation = rng.choice(LANGUAGES), rng.choice(OPERATIONS)
    for _ in range(_MAX_TRIES):
        plan = plan_edit(rng, operation, SIZE)
        if admits("train", plan.main):
            break
    else:
        raise RuntimeError(f"no lesson of the operation {operation!r} was found")
    instruction = say_edit(plan.spec, Speaker(language, rng))
    return {
        "messages": [turn("user", None, instruction), turn("assistant", None)],
        "task": "editing",
        "category": operation,
        "language": language,
        "prompt": instruction,
        "scene": plan.scene.to_dict(),
        "target_scene": plan.target.to_dict(),
        "spec": plan.spec.to_dict(),
        "combinations": {"main": [list(one) for one in plan.main], "others": []},
    }
