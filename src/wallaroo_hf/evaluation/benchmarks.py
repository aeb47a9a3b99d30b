"""The drawing benchmarks by name."""

from __future__ import annotations

from .dpg import DPG
from .drawing_plans import Benchmark
from .geneval import GENEVAL
from .imgedit import IMGEDIT

BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in (GENEVAL, DPG, IMGEDIT)}
