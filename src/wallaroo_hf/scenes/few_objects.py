"""Small pictures of one or two objects in every split: what a short training can learn, and be judged by."""

from __future__ import annotations

import random

from .captions import CAPTION_CATEGORIES, plan_caption
from .lessons import SIZE, caption_row
from .phrases import Speaker
from .splits import SPLITS, admits
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
    chosen = {"split": (split, SPLITS), "category": (category, CAPTION_CATEGORIES), "language": (language, LANGUAGES)}
    for kind, (given, known) in chosen.items():
        if given not in known and (given is not None or kind == "split"):
            raise ValueError(f"unknown {kind} {given!r}: use one of {', '.join(known)}")
    rng = random.Random(f"{seed}/{split}/{index}/{category}/{language}/few-objects")
    category = category or rng.choice(CAPTION_CATEGORIES)
    language = language or rng.choice(LANGUAGES)
    for _ in range(_MAX_TRIES):
        plan = plan_caption(rng, category, split != "train", SIZE)
        if len(plan.scene.objects) <= MAX_OBJECTS and admits(split, plan.main, plan.others):
            return caption_row(plan, category, Speaker(language, rng))
    raise RuntimeError(f"no row of the category {category!r} was found for the split {split!r}")
