"""Intervals of a few numbers, one per seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["t_interval"]

# 0.975 quantiles of Student's t by degrees of freedom from 1 on; beyond the list the last one is a little too wide
_T_QUANTILES = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
)


def t_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean of some values and half the width of its 95 % interval by Student's t; None for a single value."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    quantile = _T_QUANTILES[min(len(values) - 1, len(_T_QUANTILES)) - 1]
    return mean, quantile * math.sqrt(variance / len(values))
