"""Small pictures of one or two objects in every split: what a short training can learn, and be judged by."""

from __future__ import annotations

import random
from collections.abc import Sequence

from .captions import CAPTION_CATEGORIES, plan_caption
from .edits import plan_edit, say_edit
from .lessons import SIZE, caption_row, edit_row
from .phrases import Speaker
from .splits import OPERATIONS, SPLITS, admits
from .tasks import Row
from .words import LANGUAGES

MAX_OBJECTS = 2
_MAX_TRIES = 10_000


def make_few_row(seed: int, index: int, split: str, category: str | None = None, language: str | None = None) -> Row:
    """One text-to-image row of 64x64 pixels with one or two objects, without its picture; equal arguments give equal rows.

    Args:
        seed: the data set's seed.
        index: the row's index; the row depends on no other.
        split: one of `splits.SPLITS`.
        category: one of GenEval's six; None = by chance.
        language: "en" or "zh"; None = by chance.

    Returns:
        A row as of [`tasks.make_row`] with the task "generation".

    Raises:
        ValueError: for an unknown split, category or language.
        RuntimeError: if no such row turned up; that does not happen.
    """
    rng, category, language = _begin("few-objects", seed, index, split, category, CAPTION_CATEGORIES, language)
    for _ in range(_MAX_TRIES):
        plan = plan_caption(rng, category, split != "train", SIZE)
        if len(plan.scene.objects) <= MAX_OBJECTS and admits(split, plan.main, plan.others):
            return caption_row(plan, category, Speaker(language, rng))
    raise RuntimeError(f"no row of the category {category!r} was found for the split {split!r}")


def make_few_edit(seed: int, index: int, split: str, operation: str | None = None, language: str | None = None) -> Row:
    """One editing row of 64x64 pixels with one or two objects, without its pictures; equal arguments give equal rows.

    Args:
        seed: the data set's seed.
        index: the row's index; the row depends on no other.
        split: one of `splits.SPLITS`.
        operation: one of `splits.OPERATIONS`; None = by chance.
        language: "en" or "zh"; None = by chance.

    Returns:
        A row as of [`tasks.make_row`] with the task "editing".

    Raises:
        ValueError: for an unknown split, operation or language.
        RuntimeError: if no such row turned up; that does not happen.
    """
    rng, operation, language = _begin("few-edits", seed, index, split, operation, OPERATIONS, language)
    for _ in range(_MAX_TRIES):
        plan = plan_edit(rng, operation, SIZE, MAX_OBJECTS)
        if admits(split, plan.main):
            return edit_row(plan, say_edit(plan.spec, Speaker(language, rng)), language, plan.main)
    raise RuntimeError(f"no edit of the operation {operation!r} was found for the split {split!r}")


def _begin(
    name: str, seed: int, index: int, split: str, kind: str | None, kinds: Sequence[str], language: str | None
) -> tuple[random.Random, str, str]:
    """A row's own source of randomness, its kind and its language.

    Raises:
        ValueError: for words that are not known.
    """
    what = "operation" if kinds is OPERATIONS else "category"
    chosen = {"split": (split, SPLITS), what: (kind, kinds), "language": (language, LANGUAGES)}
    for asked, (given, known) in chosen.items():
        if given not in known and (given is not None or asked == "split"):
            raise ValueError(f"unknown {asked} {given!r}: use one of {', '.join(known)}")
    rng = random.Random(f"{seed}/{split}/{index}/{kind}/{language}/{name}")
    return rng, kind or rng.choice(kinds), language or rng.choice(LANGUAGES)
