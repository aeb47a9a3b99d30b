"""Variants side by side: means with intervals, differences that are paired by item and seed, and what claims come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ...families.ablation_contract import Claim, FamilyAblation
from ...scenes.captions import CAPTION_CATEGORIES
from ..paired_runs import CONFIDENCE, NUM_RESAMPLES, Estimate, PairedRuns, plain_estimates
from .family_scoring import RIGHT

__all__ = ["Estimate", "FamilyComparison"]


class FamilyComparison(PairedRuns):
    """What an ablation found.

    Intervals and differences are those of [`PairedRuns`].

    Args:
        ablation: whose variants.
        title: the family's.
        settings: how everything was trained and scored.
        categories: of the items, in their order.
        runs: by variant, one per seed, as of `runs/VARIANT-seed-N.json`.
    """

    def __init__(
        self,
        ablation: FamilyAblation,
        title: str,
        settings: Mapping[str, Any],
        categories: Sequence[str],
        runs: Mapping[str, Sequence[Mapping[str, Any]]],
    ) -> None:
        super().__init__(categories, runs)
        self.ablation, self.title, self.settings = ablation, title, settings

    def verdict(self, claim: Claim) -> str:
        """What a claim comes to: "appears", "the opposite appears", "not told apart", or "not run".

        Of seeds that disagree in sign nothing is said, and neither is of a single seed.
        """
        if not {claim.better, claim.worse} <= self.runs.keys():
            return "not run"
        found = self.difference(claim.better, claim.worse, RIGHT)
        if found is None or len(found.by_seed) < 2:
            return "not told apart"
        if found.low > 0 and min(found.by_seed) > 0:
            return "appears"
        return "the opposite appears" if found.high < 0 and max(found.by_seed) < 0 else "not told apart"

    @property
    def references(self) -> list[str]:
        """Those variants that the others are compared with, and that were run."""
        return [name for name in self.ablation.references if name in self.runs]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values, as in `results.json`."""
        variants = {}
        for name, runs in self.runs.items():
            means = {metric: self.mean(name, metric) for metric in self.metrics}
            inside = {one: self.mean(name, RIGHT, one) for one in CAPTION_CATEGORIES}
            differences = {
                other: {metric: self.difference(name, other, metric) for metric in self.metrics}
                for other in self.references
                if other != name
            }
            variants[name] = {
                "origin": self.ablation.variants[name].origin,
                "words": self.ablation.variants[name].words,
                "steps": runs[0]["steps"],
                "process_seconds": [run["process_seconds"] for run in runs],
                "losses": [run["losses"] for run in runs],
                "means": plain_estimates(means),
                "right_by_category": plain_estimates(inside),
                "differences": {other: plain_estimates(found) for other, found in differences.items()},
            }
        claims = []
        for claim in self.ablation.claims:
            is_run = {claim.better, claim.worse} <= self.runs.keys()
            found = self.difference(claim.better, claim.worse, RIGHT) if is_run else None
            claims.append({**asdict(claim), "verdict": self.verdict(claim), **plain_estimates({"difference": found})})
        return {
            "family": self.title,
            "question": self.ablation.question,
            "settings": {**self.settings, "seeds": self.num_seeds},
            "intervals": f"{CONFIDENCE:.0%} bootstrap, {NUM_RESAMPLES} resamples of seeds and, by category, of items",
            "variants": variants,
            "claims": claims,
        }
