"""The benchmark of the server runs, and notices images that differ."""

from __future__ import annotations

import contextlib
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


def test_a_mixed_load_against_another_commit(bench, monkeypatch):
    """Of which both give the same images; the other one's source is ours here, as a clone may have no commits."""
    source = SCRIPT.parents[1] / "src"
    monkeypatch.setenv("PYTHONPATH", str(source))
    monkeypatch.setattr(bench, "source_of", lambda commit: contextlib.nullcontext(source))
    options = ["--mixed", "--against", "HEAD", "--clients", "2", "--rate", "2", "--seconds", "1", "--device", "cpu"]
    result = bench.main(options)
    (run,) = result["runs"]
    for name in ("this", "other"):
        assert run[name]["requests"] == run["requests"] > 0 and run[name]["lost"] == 0
    assert run["answers_that_differ"] == 0
    assert run["requests_per_second_over_other"] > 0


def test_what_arrives_is_the_same_each_time(bench):
    load = importlib.import_module("mixed_load")
    plan = load.arrivals(3, 5.0, 4.0, 1)
    assert plan == load.arrivals(3, 5.0, 4.0, 1) != load.arrivals(3, 5.0, 4.0, 2)
    assert sorted(number for own in plan for _, number in own) == list(range(sum(map(len, plan))))
    assert all(moment < 4 for own in plan for moment, _ in own)
    asked = [load.request_of(number, 1) for number in range(200)]
    assert asked == [load.request_of(number, 1) for number in range(200)]
    sizes = {one.body["size"] for one in asked if one.is_drawing}
    assert sizes == set(load.SIZES) and 0.1 < sum(not one.is_drawing for one in asked) / 200 < 0.3


def test_percentiles(bench):
    percentile = importlib.import_module("mixed_load").percentile
    values = [float(value) for value in range(101)]
    assert [percentile(values, percent) for percent in (0, 50, 99, 100)] == [0, 50, 99, 100]
    assert percentile([7.0], 99) == 7
