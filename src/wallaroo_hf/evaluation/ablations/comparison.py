"""Variants side by side: means over seeds, differences from the released one with their intervals, a table and a plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from ...files.whole import new_file
from ..seed_intervals import t_interval
from .variants import Ablation, Metric

__all__ = ["Comparison", "Difference", "t_interval"]

_COLOURS = {True: "#2a78b5", False: "#d9822b"}  # released, others


@dataclass(frozen=True)
class Difference:
    """How far a variant is from the released one in one metric.

    Attributes:
        mean: over seeds, of the variant's number minus the released one's with the same seed.
        half_width: of its 95 % interval; None with one seed.
    """

    mean: float
    half_width: float | None

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.half_width is not None and abs(self.mean) > self.half_width


@dataclass(frozen=True)
class Comparison:
    """What an ablation found.

    Attributes:
        ablation: which.
        settings: how everything was trained.
        scores: variant → metric → one number per seed, in the order of seeds.
        seconds: variant → process seconds of each seed's training and scoring.
    """

    ablation: Ablation
    settings: Mapping[str, Any]
    scores: Mapping[str, Mapping[str, Sequence[float]]]
    seconds: Mapping[str, Sequence[float]]

    def difference(self, variant: str, metric: str) -> Difference:
        """A variant's difference from the released one, paired by seed.

        Of shares, seeds that happen to agree would give an interval of width 0 (one picture more in each of two), so it is
        never narrower than what the number of pictures allows.
        """
        ours, released = self.scores[variant][metric], self.scores[self.ablation.released][metric]
        mean, half_width = t_interval([one - other for one, other in zip(ours, released, strict=True)])
        items = next(one.items for one in self.ablation.metrics if one.name == metric)
        if half_width is not None and items:
            half_width = max(half_width, _share_half_width(ours, released, int(self.settings[items])))
        return Difference(mean, half_width)

    def verdict(self, variant: str, metric: Metric) -> str:
        """ "better", "worse", "within noise", "one seed" or, of what is neither good nor bad, ""."""
        found = self.difference(variant, metric.name)
        if metric.higher_is_better is None or variant == self.ablation.released:
            return ""
        if found.half_width is None:
            return "one seed"
        if not found.is_clear:
            return "within noise"
        return "better" if (found.mean > 0) == metric.higher_is_better else "worse"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values, as in `results.json`."""
        variants = {}
        for variant, scores in self.scores.items():
            metrics = {}
            for metric in self.ablation.metrics:
                mean, half_width = t_interval(scores[metric.name])
                found = self.difference(variant, metric.name)
                metrics[metric.name] = {
                    "mean": mean,
                    "half_width_95": half_width,
                    "by_seed": list(scores[metric.name]),
                    "difference": found.mean,
                    "difference_half_width_95": found.half_width,
                    "verdict": self.verdict(variant, metric),
                }
            variants[variant] = {"metrics": metrics, "process_seconds": list(self.seconds[variant])}
        return {
            "ablation": self.ablation.name,
            "question": self.ablation.question,
            "released": self.ablation.released,
            "settings": dict(self.settings),
            "variants": variants,
        }

    def table(self) -> Table:
        """A row per metric and a column per variant; below each mean its paired difference from the released one."""
        seeds = len(next(iter(self.seconds.values())))
        table = Table(
            title=f"{self.ablation.question}\nMean over {seeds} {'seed' if seeds == 1 else 'seeds'}; below it the "
            "difference from the released arrangement (*), with its 95 % interval, paired by seed",
            title_justify="left",
            box=box.SIMPLE_HEAD,
            show_lines=True,
        )
        table.add_column("")
        for variant in self.scores:
            table.add_column(escape(variant) + ("*" if variant == self.ablation.released else ""), justify="right")
        for metric in self.ablation.metrics:
            table.add_row(metric.title, *(escape(self._cell(variant, metric)) for variant in self.scores))
        return table

    def _cell(self, variant: str, metric: Metric) -> str:
        shown = _number(metric, sum(self.scores[variant][metric.name]) / len(self.scores[variant][metric.name]))
        if variant == self.ablation.released:
            return shown
        found = self.difference(variant, metric.name)
        spread = "" if found.half_width is None else f" ± {_number(metric, found.half_width)}"
        sign = "+" if found.mean >= 0 else ""
        lines = (shown, f"{sign}{_number(metric, found.mean)}{spread}", self.verdict(variant, metric))
        return "\n".join(line for line in lines if line)

    def plot(self, path: Path) -> Path:
        """Draws one panel per metric: each variant's mean as a bar with its 95 % interval, and its seeds as dots.

        Raises:
            ImportError: without matplotlib.
        """
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError('Plots need matplotlib; run `pip install "wallaroo-hf[train]"`.') from error
        metrics = self.ablation.metrics
        columns = min(3, len(metrics))
        rows = math.ceil(len(metrics) / columns)
        figure = Figure(figsize=(3.6 * columns, 2.7 * rows + 0.5), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(f"{self.ablation.name}: {self.ablation.question}")
        panels = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes, metric in zip(panels, metrics):
            self._draw_panel(axes, metric)
        for axes in panels[len(metrics) :]:
            axes.set_visible(False)
        with new_file(path) as partial:
            figure.savefig(partial, dpi=140)
        return path

    def _draw_panel(self, axes: Any, metric: Metric) -> None:
        scale = 100 if metric.is_share else 1
        for column, variant in enumerate(self.scores):
            values = [scale * value for value in self.scores[variant][metric.name]]
            mean, half_width = t_interval(values)
            axes.bar(column, mean, width=0.6, color=_COLOURS[variant == self.ablation.released], alpha=0.75)
            if half_width is not None:
                axes.errorbar(column, mean, yerr=half_width, color="0.2", capsize=4, linewidth=1.2)
            axes.plot([column] * len(values), values, "o", color="0.15", markersize=3)
        better = {True: " (more is better)", False: " (less is better)", None: ""}[metric.higher_is_better]
        axes.set_title(metric.title + (", %" if metric.is_share else "") + better, fontsize=8.5)
        axes.set_xticks(range(len(self.scores)), list(self.scores))
        axes.set_ylim(0, 100) if metric.is_share else axes.set_ylim(bottom=0)
        axes.grid(axis="y", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)


def _share_half_width(ours: Sequence[float], released: Sequence[float], items: int) -> float:
    """Half the width of the 95 % interval of the difference of two shares, over `items` pictures of each seed."""
    variance = 0.0
    for values in (ours, released):
        count = items * len(values)
        share = (items * sum(values) + 1) / (count + 2)  # not 0 or 1, whose variance would be none
        variance += share * (1 - share) / count
    return 1.96 * math.sqrt(variance)


def _number(metric: Metric, value: float) -> str:
    if metric.is_share:
        return f"{100 * value:.1f} %"
    return f"{value:.1f}" if metric.higher_is_better is not False else f"{value:.4f}"
