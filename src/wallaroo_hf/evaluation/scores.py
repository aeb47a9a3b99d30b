"""From verdicts to numbers: shares of items judged good, with bootstrap confidence intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..scenes.words import LANGUAGES
from .items import Item

GROUPS = ("all", *LANGUAGES)
CONFIDENCE = 0.95
NUM_RESAMPLES = 10_000
BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Score:
    """A share with its interval.

    Attributes:
        value: in [0, 1].
        low: lower end of the 95 % confidence interval.
        high: upper end.
        num_items: how many items it is over.
    """

    value: float
    low: float
    high: float
    num_items: int

    def __str__(self) -> str:
        """In percent: "93.3 (90–96)"."""
        percent = "100" if self.value == 1 else f"{100 * self.value:.1f}"
        return f"{percent} ({100 * self.low:.0f}–{100 * self.high:.0f})"


@dataclass(frozen=True)
class Breakdown:
    """Scores of some items of a task.

    Attributes:
        overall: mean over the categories, whatever their numbers of items.
        categories: share of the good ones by category.
        sizes: share of the good ones by picture size, "height x width" in pixels.
    """

    overall: Score
    categories: dict[str, Score]
    sizes: dict[str, Score]


@dataclass(frozen=True)
class SceneScores:
    """What `evaluate_scenes` found.

    Attributes:
        settings: what decides the results, the checkpoint's hash among them.
        versions: of the software.
        tasks: by task, and within by language: "all", and those of "en" and "zh" that there are (not in reconstruction).
    """

    settings: dict[str, Any]
    versions: dict[str, str]
    tasks: dict[str, dict[str, Breakdown]]

    def overall(self, task: str, language: str = "all") -> float:
        """The mean over a task's categories, in [0, 1].

        Raises:
            KeyError: for a task or language that was not evaluated.
        """
        return self.tasks[task][language].overall.value

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values, as in `scores.json`."""
        return {
            "benchmark": "scenes",
            "settings": self.settings,
            "versions": self.versions,
            "intervals": f"{CONFIDENCE:.0%} bootstrap, {NUM_RESAMPLES} resamples within categories, seed {BOOTSTRAP_SEED}",
            "tasks": {
                task: {group: dataclasses.asdict(breakdown) for group, breakdown in groups.items()}
                for task, groups in self.tasks.items()
            },
        }


def mean_score(verdicts: Sequence[Sequence[bool]]) -> Score:
    """The mean of the shares of good verdicts of some strata, each with at least one verdict.

    The interval is that of the percentile bootstrap within strata. Drawing n verdicts anew, with replacement, from n of
    which a share p is good gives a binomial number of good ones, so that number is sampled instead.
    """
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    shares = [sum(stratum) / len(stratum) for stratum in verdicts]
    resampled = [
        rng.binomial(len(stratum), share, NUM_RESAMPLES) / len(stratum) for stratum, share in zip(verdicts, shares)
    ]
    low, high = np.quantile(np.mean(resampled, axis=0), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    value = sum(shares) / len(shares)
    return Score(round(value, 6), round(float(low), 6), round(float(high), 6), sum(map(len, verdicts)))


def score_task(items: Sequence[Item], good: Mapping[str, bool]) -> dict[str, Breakdown]:
    """The scores of all items of a task, and of those in each language.

    Args:
        items: of one task, at least one.
        good: the verdict on each, by name.

    Raises:
        KeyError: if an item has no verdict.
    """
    groups: dict[str, Breakdown] = {}
    for group in GROUPS:
        members = [item for item in items if group in ("all", item.language)]
        if members:
            categories = _split((item.category, good[item.name]) for item in members)
            sizes = _split((item.size, good[item.name]) for item in members)
            groups[group] = Breakdown(
                overall=mean_score(list(categories.values())),
                categories={name: mean_score([verdicts]) for name, verdicts in categories.items()},
                sizes={name: mean_score([verdicts]) for name, verdicts in sizes.items()},
            )
    return groups


def _split(labelled: Iterable[tuple[str, bool]]) -> dict[str, list[bool]]:
    """Verdicts by label, labels in the order in which they first come."""
    by_label: dict[str, list[bool]] = {}
    for label, ok in labelled:
        by_label.setdefault(label, []).append(ok)
    return by_label
