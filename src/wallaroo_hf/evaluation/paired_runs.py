"""Runs of several seeds on the same items, side by side: means with intervals, differences paired by item and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .seed_intervals import t_interval

__all__ = ["CONFIDENCE", "NUM_RESAMPLES", "Estimate", "PairedRuns", "plain_estimates"]

NUM_RESAMPLES = 4000
_RESAMPLING_SEED = 0
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean, or a difference of means.

    Attributes:
        value: over categories, of the means over items and seeds.
        low, high: its 95 % interval.
        by_seed: the same of each seed.
        seeds_half_width: half the width of Student's 95 % interval over `by_seed` alone; None with one seed.
    """

    value: float
    low: float
    high: float
    by_seed: tuple[float, ...]
    seeds_half_width: float | None


class PairedRuns:
    """What several variants came to, each of the same seeds and items.

    An interval is that of the bootstrap in which seeds and, within categories, items are drawn anew, both at once and the
    same for both sides of a difference. (With two seeds that knows little of how far seeds lie apart; Student's over
    seeds, beside it, knows as little and says so by its width.)

    Args:
        categories: of the items, in their order.
        runs: by variant, one per seed, each with `values`: by metric, one number (or None) per item.
    """

    def __init__(self, categories: Sequence[str], runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        self.runs = runs
        self.num_seeds = len(next(iter(runs.values())))
        self._categories = np.array(categories)
        rng = np.random.default_rng(_RESAMPLING_SEED)
        # how often each seed (R, S) and each item (R, N) is drawn; the first row is what was found
        self._seeds = _drawn(rng, [list(range(self.num_seeds))], self.num_seeds)
        members = [np.flatnonzero(self._categories == name).tolist() for name in dict.fromkeys(categories)]
        self._items = _drawn(rng, members, len(categories))

    @property
    def metrics(self) -> list[str]:
        """All that there is a value of, for any variant."""
        names = dict.fromkeys(name for runs in self.runs.values() for name in runs[0]["values"])
        return list(names)

    def values(self, variant: str, metric: str) -> np.ndarray | None:
        """`(seeds, items)`, NaN where an item has none; None for a variant that has no such metric."""
        runs = self.runs[variant]
        if metric not in runs[0]["values"]:
            return None
        return np.array(
            [[np.nan if one is None else one for one in run["values"][metric]] for run in runs], dtype=float
        )

    def mean(self, variant: str, metric: str, category: str | None = None) -> Estimate | None:
        """A variant's mean, over all categories or in one; None if there is none."""
        values = self.values(variant, metric)
        return None if values is None else self._estimate([values], category)

    def difference(self, variant: str, other: str, metric: str, category: str | None = None) -> Estimate | None:
        """How much higher a variant's mean is than another's; None if either has none.

        Args:
            variant, other: names.
            metric: of the values.
            category: of the items; None = all, each as much as the others.
        """
        ours, theirs = self.values(variant, metric), self.values(other, metric)
        return None if ours is None or theirs is None else self._estimate([ours, theirs], category)

    def _estimate(self, sides: Sequence[np.ndarray], category: str | None) -> Estimate | None:
        chosen = self._categories if category is None else np.where(self._categories == category, category, "")
        resampled = self._means(sides[0], chosen, self._seeds, self._items)
        alone = np.eye(self.num_seeds)
        every = np.repeat(self._items[:1], self.num_seeds, axis=0)
        by_seed = self._means(sides[0], chosen, alone, every)
        if len(sides) == 2:
            resampled = resampled - self._means(sides[1], chosen, self._seeds, self._items)
            by_seed = by_seed - self._means(sides[1], chosen, alone, every)
        if np.isnan(resampled[0]):
            return None
        low, high = np.nanquantile(resampled[1:], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        seeds = tuple(round(float(one), 6) for one in by_seed)
        half_width = t_interval(seeds)[1]
        value, low, high = (round(float(one), 6) for one in (resampled[0], low, high))
        return Estimate(value, low, high, seeds, half_width)

    @staticmethod
    def _means(values: np.ndarray, categories: np.ndarray, seeds: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Means over categories `(R,)` of `(S, N)` values, with the weights `(R, S)` of seeds and `(R, N)` of items."""
        known = ~np.isnan(values)
        sums = seeds @ np.where(known, values, 0.0) * items  # (R, N)
        counts = seeds @ known.astype(float) * items
        means = []
        for name in sorted(set(categories.tolist()) - {""}):
            here = categories == name
            if known[:, here].any():
                with np.errstate(invalid="ignore"):
                    means.append(sums[:, here].sum(1) / counts[:, here].sum(1))
        if not means:
            return np.full(len(seeds), np.nan)
        # a resample may leave out all of the few items of a category that have a value
        stacked = np.stack(means)
        there = ~np.isnan(stacked)
        return np.where(there, stacked, 0.0).sum(0) / np.maximum(there.sum(0), 1)


def _drawn(rng: np.random.Generator, strata: Sequence[Sequence[int]], size: int) -> np.ndarray:
    """How often each of `size` things is drawn, `(1 + resamples, size)`, with replacement within strata; at first once."""
    weights = np.zeros((1 + NUM_RESAMPLES, size))
    weights[0] = 1
    for members in strata:
        shares = np.full(len(members), 1 / len(members))
        weights[1:, members] = rng.multinomial(len(members), shares, NUM_RESAMPLES)
    return weights


def plain_estimates(estimates: Mapping[str, Estimate | None]) -> dict[str, Any]:
    """JSON-able values of those that there are."""
    return {name: asdict(found) for name, found in estimates.items() if found is not None}
