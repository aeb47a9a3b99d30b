"""Counted FLOPs of answers are those of the model's own forwards."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from showo2.tiny_showo2 import BOS, image_ids, tiny_showo2

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "showo2_flops.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("showo2_flops", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["showo2_flops"] = module
    spec.loader.exec_module(module)
    return module


def test_counts_are_those_of_generate(script, monkeypatch):
    model = tiny_showo2(attention="eager")
    prompt = [BOS, *image_ids(16), 5, 6]
    with FlopCounterMode(display=False) as counter:
        model.generate(
            torch.tensor([prompt]), image_latents=[torch.randn(16, 8, 8)], max_new_tokens=9, min_new_tokens=9
        )
    monkeypatch.setattr(script, "GRID", 4)
    found = script.answer(model.to("meta"), len(prompt), 9, 1)
    assert found["with the cache"] == counter.get_total_flops()
    assert found["without"] > 5 * found["with the cache"]


def test_an_answer_of_the_released_model_costs_less_than_a_tenth(script):
    model = script.build("1.5B", layers=2)
    prompt, frames = script.PROMPTS["a picture"]
    found = script.answer(model, prompt, 100, frames)
    assert found["without"] >= 10 * found["with the cache"]  # with 28 layers images are a smaller share yet
