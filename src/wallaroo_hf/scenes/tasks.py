"""Rows of the data set: one conversation each, a pure function of seed, split and index.

A row is a plain dictionary, in TRL's format for conversations with pictures and a little more:

- `messages`: turns with `role` and `content`, a list of `{"type": "text", "text": ...}` and `{"type": "image"}`. An image
  in the user's turn is shown, an image in the assistant's turn is to be drawn.
- `task`: "understanding", "generation", "editing" or "interleaved" (the assistant writes, draws, and writes again);
  `category`: see `CATEGORIES`; `language`: "en" or "zh"; `prompt`: the user's last words.
- `scene`: what is shown, and `target_scene`: what is to be drawn, each as of `Scene.to_dict`, or None.
- `spec`: what the judge checks (`specs.py`): a caption's, an answer's or an edit's, by task; interleaved rows have the
  specification of the picture that they draw.
- `combinations`: what the split goes by (`splits.py`): `main` and `others`, lists of (shape, attribute, relation).
- `images`, after [`render_row`]: the pictures in the order of their placeholders.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .captions import CAPTION_CATEGORIES, plan_caption, say_caption
from .edits import plan_edit, say_edit
from .phrases import Speaker, describe
from .questions import answer, plan_question
from .render import render
from .scene import Scene
from .specs import CaptionSpec, ObjectSpec
from .splits import OPERATIONS, QUESTIONS, SPLITS, Combination, admits, pair
from .words import LANGUAGES

CATEGORIES: dict[str, tuple[str, ...]] = {
    "understanding": QUESTIONS,
    "generation": CAPTION_CATEGORIES,
    "editing": OPERATIONS,
    "interleaved": ("draw", "edit", "follow_up"),
}
TASKS = tuple(CATEGORIES)
TASK_WEIGHTS = {"understanding": 0.25, "generation": 0.4, "editing": 0.25, "interleaved": 0.1}
_MAX_TRIES = 10_000

Row = dict[str, Any]
_IMAGE = {"type": "image"}
_HERE_IS = {
    "en": ("Here is your picture:\n", "Here you are:\n", "Sure, here it is:\n"),
    "zh": ("这是你要的图片：\n", "给你：\n", "好的，画好了：\n"),
}
_HERE_IS_EDITED = {
    "en": ("Here is the edited picture:\n", "Here you are:\n", "Sure, done:\n"),
    "zh": ("这是修改后的图片：\n", "给你：\n", "好的，改好了：\n"),
}


class _Draft(NamedTuple):
    """A row without words, which its split may still refuse; `plan` is the plan of its task."""

    main: tuple[Combination, ...]
    others: tuple[Combination, ...]
    scene: Scene | None
    target: Scene | None
    plan: Any


def make_row(
    seed: int,
    index: int,
    split: str = "train",
    task: str | None = None,
    category: str | None = None,
    language: str | None = None,
    task_weights: Mapping[str, float] | None = None,
) -> Row:
    """One row of the data set, without pictures: equal arguments give equal rows, and what is not given is left to chance.

    Args:
        seed: the data set's seed.
        index: the row's index; the row depends on no other.
        split: one of `splits.SPLITS`.
        task: one of `TASKS`.
        category: one of `CATEGORIES[task]`; needs `task`.
        language: "en" or "zh".
        task_weights: how often each task comes, in any unit; `TASK_WEIGHTS` if None.

    Raises:
        ValueError: for an unknown name.
    """
    _check_choice("split", split, SPLITS)
    rng = random.Random(f"{seed}/{split}/{index}/{task}/{category}/{language}")
    if task is None:
        weights = TASK_WEIGHTS if task_weights is None else task_weights
        task = rng.choices(list(weights), list(weights.values()))[0]
    _check_choice("task", task, TASKS)
    category = rng.choice(CATEGORIES[task]) if category is None else category
    _check_choice(f"category of the task {task!r}", category, CATEGORIES[task])
    language = rng.choice(LANGUAGES) if language is None else language
    draft = _draft(rng, task, category, split)
    messages, spec = _say(draft, task, category, Speaker(language, rng))
    users = [message for message in messages if message["role"] == "user"]
    return {
        "messages": messages,
        "task": task,
        "category": category,
        "language": language,
        "prompt": users[-1]["content"][-1]["text"],
        "scene": None if draft.scene is None else draft.scene.to_dict(),
        "target_scene": None if draft.target is None else draft.target.to_dict(),
        "spec": spec,
        "combinations": {"main": [list(one) for one in draft.main], "others": [list(one) for one in draft.others]},
    }


def row_scenes(row: Mapping[str, Any]) -> list[Scene]:
    """The scenes of a row's pictures, in the order of their placeholders."""
    shown = row["shown"] if "shown" in row else [row["scene"]]  # a chat may show several
    return [Scene.from_dict(scene) for scene in (*shown, row["target_scene"]) if scene is not None]


def render_row(row: Row) -> Row:
    """The row with its pictures, as RGB images, under `images`."""
    return {**row, "images": [render(scene) for scene in row_scenes(row)]}


def _check_choice(kind: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"unknown {kind} {value!r}: use one of {', '.join(choices)}")


# ------------------------------------------------------------------------------------------------------------ drafts


def _draft(rng: random.Random, task: str, category: str, split: str) -> _Draft:
    for _ in range(_MAX_TRIES):
        draft = _DRAFTS[task](rng, category, split != "train")
        if admits(split, draft.main, draft.others):
            return draft
    raise RuntimeError(f"no {task} row of the category {category!r} was found for the split {split!r}")


def _draft_question(rng: random.Random, category: str, held_out: bool) -> _Draft:
    plan = plan_question(rng, category)
    return _Draft(plan.main, (), plan.scene, None, plan)


def _draft_caption(rng: random.Random, category: str, held_out: bool) -> _Draft:
    plan = plan_caption(rng, category, held_out)
    return _Draft(plan.main, plan.others, None, plan.scene, plan)


def _draft_edit(rng: random.Random, category: str, held_out: bool) -> _Draft:
    plan = plan_edit(rng, category)
    return _Draft(plan.main, (), plan.scene, plan.target, plan)


def _draft_interleaved(rng: random.Random, category: str, held_out: bool) -> _Draft:
    """Drawing or editing, which also describes its outcome; a follow-up edits what was drawn a turn before."""
    if category == "draw":
        draft = _draft_caption(rng, rng.choice(CAPTION_CATEGORIES), held_out)
    else:
        draft = _draft_edit(rng, rng.choice(OPERATIONS), held_out)
    others = draft.others
    if draft.target is not None:
        others += tuple(Combination(thing.shape, thing.colour, "describe") for thing in draft.target.objects)
    if category == "follow_up" and draft.scene is not None:
        others += _drawn_combinations(draft.scene)
    return draft._replace(others=others)


def _drawn_combinations(scene: Scene) -> tuple[Combination, ...]:
    """The combinations of a caption that names all objects of a scene."""
    counts = scene.counts()
    shapes = [shape for shape, _ in counts]
    found = [pair(first, second) for at, first in enumerate(shapes) for second in shapes[at + 1 :]]
    for (shape, colour), count in counts.items():
        alone = len(counts) == 1 and count == 1
        found.append(
            Combination(shape, colour, "alone" if alone else "with_other" if count == 1 else f"counted_{count}")
        )
        found += [Combination(shape, scene.background, "on")] if alone else []
    return tuple(found)


_DRAFTS = {
    "understanding": _draft_question,
    "generation": _draft_caption,
    "editing": _draft_edit,
    "interleaved": _draft_interleaved,
}

# ------------------------------------------------------------------------------------------------------------- words


def turn(role: str, *content: str | None) -> dict[str, Any]:
    """A message; None stands for an image."""
    return {
        "role": role,
        "content": [dict(_IMAGE) if part is None else {"type": "text", "text": part} for part in content],
    }


def _say(draft: _Draft, task: str, category: str, speaker: Speaker) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The messages of a row and its specification."""
    plan, language = draft.plan, speaker.language
    if task == "understanding":
        question, said = speaker.sentence(plan.ask(speaker)), answer(plan.spec, plan.scene, language)
        spec = dataclasses.replace(plan.spec, language=language).to_dict()
        return [turn("user", None, question), turn("assistant", said)], spec
    spec = plan.spec.to_dict()
    if task == "generation":
        return [turn("user", say_caption(plan.spec, speaker)), turn("assistant", None)], spec
    if task == "editing":
        return [turn("user", None, say_edit(plan.spec, speaker)), turn("assistant", None)], spec
    after = describe(draft.target or plan.scene, language)
    if category == "draw":
        request = say_caption(plan.spec, speaker, request=True)
        return [turn("user", request), turn("assistant", speaker.pick(_HERE_IS[language]), None, after)], spec
    history = []
    if category == "follow_up":
        # a picture of an earlier turn is not kept in its place but shown again, see `processing.next_turn.continue_chat`
        first = say_caption(_full_spec(plan.scene), speaker, request=True)
        said = speaker.pick(_HERE_IS[language]) + describe(plan.scene, language)
        history = [turn("user", first), turn("assistant", said)]
    edit = turn("user", None, say_edit(plan.spec, speaker))
    return [*history, edit, turn("assistant", speaker.pick(_HERE_IS_EDITED[language]), None, after)], spec


def _full_spec(scene: Scene) -> CaptionSpec:
    """The caption that names all objects of a scene and its background."""
    objects = tuple(ObjectSpec(shape, colour, count) for (shape, colour), count in scene.counts().items())
    return CaptionSpec(objects, background=scene.background)
