"""Paradigms side by side: scores with intervals, how they came about, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...scenes.caption_parts import FAILURES
from ..items import Item
from ..paired_runs import CONFIDENCE, NUM_RESAMPLES, Estimate, PairedRuns, plain_estimates
from ..seed_intervals import t_interval
from .paradigm_scoring import FORGOTTEN, RIGHT

__all__ = ["GOALS", "ParadigmResults", "at_flops", "reached"]

GOALS = (0.5, 0.8)
_CLOSE = 1.1  # numbers of parameters that count as equal
Run = Mapping[str, Any]


def reached(run: Run, goal: float) -> dict[str, float] | None:
    """The first look at which a share of the drawings is right.

    Args:
        run: as of `run.json`.
        goal: the share.

    Returns:
        Its `step`, `seconds` and `flops`; None if there is none.
    """
    for look in run["looks"]:
        if look[RIGHT] >= goal:
            return {name: look[name] for name in ("step", "seconds", "flops")}
    return None


def at_flops(run: Run, flops: float) -> float:
    """The share of right drawings after so many operations: between two looks on the line that joins them.

    Args:
        run: as of `run.json`.
        flops: of training.
    """
    before = (0.0, 0.0)
    for look in run["looks"]:
        here = (float(look["flops"]), float(look[RIGHT]))
        if here[0] >= flops:
            share = (flops - before[0]) / (here[0] - before[0])
            return before[1] + share * (here[1] - before[1])
        before = here
    return before[1]


class ParadigmResults:
    """What a comparison found.

    Args:
        settings: of all runs, as in `manifest.json`.
        families: by name: title, words, what is taken of the language model, parameters.
        items: by task.
        runs: by family, one per seed, as of `run.json`.
        base: share of the language model's own answers that are right, by category; None = not asked.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        families: Mapping[str, Mapping[str, Any]],
        items: Mapping[str, Sequence[Item]],
        runs: Mapping[str, Sequence[Run]],
        base: float | None,
    ) -> None:
        self.settings, self.families, self.runs, self.base = settings, families, runs, base
        self.num_seeds = len(next(iter(runs.values())))
        self.tasks: dict[str, PairedRuns] = {}
        self.categories: dict[str, list[str]] = {}
        for task, own in items.items():
            able = {
                name: [{"values": run["values"][task]} for run in found]
                for name, found in runs.items()
                if task in found[0]["values"]
            }
            if able:
                categories = [item.category for item in own]
                self.tasks[task] = PairedRuns(categories, able)
                self.categories[task] = list(dict.fromkeys(categories))

    def mean(self, family: str, task: str, metric: str = RIGHT, category: str | None = None) -> Estimate | None:
        """A family's mean; None where it does not do the task.

        Args:
            family: its name.
            task: of the items.
            metric: of the values.
            category: of the items; None = all, each as much as the others.
        """
        found = self.tasks.get(task)
        return None if found is None or family not in found.runs else found.mean(family, metric, category)

    @property
    def parameters_agree(self) -> bool:
        """Whether all families have as many parameters, to within 10 %, image codecs left out."""
        totals = [family["parameters"]["total"] for family in self.families.values()]
        return max(totals) <= _CLOSE * min(totals)

    @property
    def least_flops(self) -> float:
        """What every run computed at least."""
        return min(float(run["flops"]) for found in self.runs.values() for run in found)

    def goal(self, family: str, goal: float) -> dict[str, Any]:
        """When a share of drawings was right first: of each seed, None where it never was."""
        found = [reached(run, goal) for run in self.runs[family]]
        return {name: [None if one is None else one[name] for one in found] for name in ("step", "seconds", "flops")}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values, as in `results.json`."""
        return {
            "settings": {**self.settings, "seeds": self.num_seeds},
            "intervals": f"{CONFIDENCE:.0%} bootstrap, {NUM_RESAMPLES} resamples of seeds and, by category, of items",
            "base": {"understanding": self.base},
            "parameters_within_10_percent": self.parameters_agree,
            "least_flops": self.least_flops,
            "families": {name: self._family(name) for name in self.runs},
        }

    def _family(self, name: str) -> dict[str, Any]:
        runs = self.runs[name]
        equal, width = t_interval([at_flops(run, self.least_flops) for run in runs])
        scores = {task: self._scores(name, task) for task, found in self.tasks.items() if name in found.runs}
        others = [other for other in self.runs if other != name]
        return {
            **self.families[name],
            "steps": [run["steps"] for run in runs],
            "seconds": [run["seconds"] for run in runs],
            "flops": [run["flops"] for run in runs],
            "scores": scores,
            "differences": {
                other: plain_estimates({task: self.difference(name, other, task) for task in scores})
                for other in others
            },
            "first_failures": plain_estimates({one: self.mean(name, "generation", one) for one in FAILURES}),
            "forgotten": plain_estimates({RIGHT: self.mean(name, "understanding", FORGOTTEN)}).get(RIGHT),
            "drawing_at_least_flops": {"value": round(equal, 6), "seeds_half_width": width},
            "reached": {str(goal): self.goal(name, goal) for goal in GOALS},
            "drawing_costs": [run["drawing_costs"] for run in runs],
        }

    def _scores(self, name: str, task: str) -> dict[str, Any]:
        inside = {one: self.mean(name, task, RIGHT, one) for one in self.categories[task]}
        return {**plain_estimates({"all": self.mean(name, task)}), "categories": plain_estimates(inside)}

    def difference(self, name: str, other: str, task: str) -> Estimate | None:
        """How much more of a task is right with one family than with another; None where either does not do it.

        Args:
            name, other: families.
            task: of the items.
        """
        found = self.tasks.get(task)
        if found is None or not {name, other} <= found.runs.keys():
            return None
        return found.difference(name, other, RIGHT)
