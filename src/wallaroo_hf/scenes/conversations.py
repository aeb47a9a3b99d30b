"""Several questions about one picture in one row: more to learn per picture, for training only."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence

from .phrases import Speaker
from .questions import QuestionPlan, answer, plan_question, plan_question_about
from .splits import QUESTIONS, admits
from .tasks import Row, turn
from .words import LANGUAGES

_TRIES_PER_QUESTION = 6
_MAX_TRIES = 10_000


def make_conversation(
    seed: int,
    index: int,
    num_questions: int = 4,
    split: str = "train",
    weights: Mapping[str, float] | None = None,
) -> Row:
    """One conversation about a picture, without the picture: equal arguments give equal rows.

    The first question comes with its picture, as rows of the task "understanding" do; the others are about the same one.
    Each is admitted by the split on its own, so a train row never asks about a held-out combination.

    Args:
        seed: the data set's seed.
        index: the row's index; the row depends on no other.
        num_questions: how many questions at most; where a picture does not answer a category another one is tried, and
            the row is shorter if none of a few does.
        split: one of `splits.SPLITS`.
        weights: how often each category is asked, in any unit, 1 if not named; all alike if None.

    Returns:
        A row as of [`tasks.make_row`] with the task "understanding"; `category` is the last question's, and `spec` its
        answer's; `scene` is the picture.
    """
    rng = random.Random(f"{seed}/{split}/{index}/conversation")
    language = rng.choice(LANGUAGES)
    shares = None if weights is None else [weights.get(category, 1.0) for category in QUESTIONS]
    plans = _plan(rng, num_questions, split, shares)
    messages = []
    for number, (_, plan) in enumerate(plans):
        speaker = Speaker(language, rng)
        question = speaker.sentence(plan.ask(speaker))
        picture = [None] if number == 0 else []
        messages += [turn("user", *picture, question), turn("assistant", answer(plan.spec, plan.scene, language))]
    category, last = plans[-1]
    main = [list(combination) for _, plan in plans for combination in plan.main]
    return {
        "messages": messages,
        "task": "understanding",
        "category": category,
        "language": language,
        "prompt": messages[-2]["content"][-1]["text"],
        "scene": last.scene.to_dict(),
        "target_scene": None,
        "spec": dataclasses.replace(last.spec, language=language).to_dict(),
        "combinations": {"main": main, "others": []},
    }


def _plan(
    rng: random.Random, num_questions: int, split: str, shares: Sequence[float] | None
) -> list[tuple[str, QuestionPlan]]:
    """The questions with their categories, all about the scene of the first."""
    for _ in range(_MAX_TRIES):
        category = rng.choice(QUESTIONS) if shares is None else rng.choices(QUESTIONS, shares)[0]
        first = plan_question(rng, category)
        if not first.scene.objects or not admits(split, first.main):
            continue
        plans = [(category, first)]
        for _ in range(num_questions - 1):
            found = _another(rng, plans, split, shares)
            if found is not None:
                plans.append(found)
        return plans
    raise RuntimeError(f"no conversation was found for the split {split!r}")


def _another(
    rng: random.Random, plans: Sequence[tuple[str, QuestionPlan]], split: str, shares: Sequence[float] | None
) -> tuple[str, QuestionPlan] | None:
    """A question that was not asked yet: an answer that stands above it already is copied, not found in the picture."""
    asked = {(plan.spec, plan.main) for _, plan in plans}
    for category in rng.choices(QUESTIONS, shares, k=_TRIES_PER_QUESTION):
        plan = plan_question_about(rng, category, plans[0][1].scene)
        if plan is not None and admits(split, plan.main) and (plan.spec, plan.main) not in asked:
            return category, plan
    return None
