"""The benchmark of the server runs, and notices images that differ."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

import running_server  # noqa: F401  skips where the server's packages are missing

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "serve.py"


@pytest.fixture(scope="module")
def bench():
    """The script as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        return importlib.import_module("serve")


def test_it_runs(bench, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(SCRIPT.parents[1] / "src"))
    output = tmp_path / "serve.json"
    options = ["--size", "32x32", "--requests", "6", "--clients", "3", "--device", "cpu", "--output", str(output)]
    result = bench.main(options)
    assert json.loads(output.read_text()) == json.loads(json.dumps(result))
    assert [run["clients"] for run in result["runs"]] == [1, 3]
    assert [run["requests"] for run in result["runs"]] == [6, 6]
    assert all(run["cpu_seconds_per_image"] > 0 for run in result["runs"])
    assert result["images_that_differ_from_one_at_a_time"] == 0
    assert result["runs"][1]["latency_seconds"]["p50"] <= result["runs"][1]["latency_seconds"]["max"]


def test_percentiles(bench):
    values = [float(value) for value in range(101)]
    assert [bench._percentile(values, percent) for percent in (0, 50, 99, 100)] == [0, 50, 99, 100]
    assert bench._percentile([7.0], 99) == 7
