"""The benchmark of a training step runs, compares equals, and counts right."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "train_step.py"


@pytest.fixture(scope="module")
def train_step():
    """The script as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        return importlib.import_module("train_step")


@pytest.fixture
def bench(train_step):
    """A small model and its rows."""
    return train_step.Bench(train_step.PRESETS["micro"]["vocabulary_4096"], torch.device("cpu"))


def test_both_ways_compute_the_same(train_step, bench, monkeypatch):
    assert max(train_step.agreement(bench).values()) < 1e-5
    assert bench.tokens == 6 * 80
    kinds = [[row for batch in bench.mixed for row in batch["input_ids"]], list(bench.by_task)]
    assert (len(kinds[0]), kinds[1]) == (6, ["understanding", "generation", "editing"])
    released = train_step.released_step
    monkeypatch.setattr(train_step, "released_step", lambda *args: {**released(*args), "editing_text": 1.0})
    with pytest.raises(RuntimeError, match="differ"):
        train_step.agreement(bench)


def test_steps_take_time_and_lora_moves_adapters_only(train_step, bench):
    assert bench.step(bench.ours) > 0 and bench.step(bench.released) > 0
    bench.add_lora()
    bench.add_optimizer()
    before = {name: parameter.clone() for name, parameter in bench.trained.named_parameters()}
    bench.step(bench.ours)
    moved = {name for name, parameter in bench.trained.named_parameters() if not torch.equal(parameter, before[name])}
    assert any("lora_B" in name for name in moved) and any("edit_head" in name for name in moved)
    assert all("lora" in name or "modules_to_save" in name for name in moved)


def test_operations_are_counted(train_step, bench):
    """Against what PyTorch counts, which has attention in full and adapters too, and the text head where it is needed."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        bench.ours()
    assert counter.get_total_flops() == pytest.approx(train_step.step_flops(bench, lora=False), rel=0.2)
    assert train_step.step_flops(bench, lora=True) < train_step.step_flops(bench, lora=False)


def test_memory_is_that_of_a_process_of_its_own():
    command = [sys.executable, str(SCRIPT), "--preset", "micro", "--memory-of", "vocabulary_4096:ours"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    memory = json.loads(result.stdout.splitlines()[-1])
    assert 2**27 < memory["before_steps_bytes"] <= memory["peak_bytes"] < 2**31


def test_bars(train_step):
    ratios = {"tokens_per_second.ours_over_released": {"median": 1.4}, "peak_memory.ours_over_released": 0.4}
    bars = train_step.judge(ratios)
    assert [bar["met"] for bar in bars.values()] == [False, True]
