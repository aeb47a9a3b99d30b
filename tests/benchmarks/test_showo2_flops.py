"""Counted FLOPs of answers are those of the model's own forwards."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from showo2.tiny_showo2 import BOS, START, image_ids, tiny_showo2

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


def test_counts_are_those_of_drawing(script):
    model = tiny_showo2(attention="eager")
    prompt = [BOS, 5, 6, 7, START]
    inputs = {"input_ids": torch.tensor([prompt]), "noise": [torch.randn(16, 8, 8)], "generation_mode": "image"}
    with FlopCounterMode(display=False) as counter:
        model.generate(**inputs, num_inference_steps=3, guidance_scale=5.0)
    found = script.drawing(model.to("meta"), 8, len(prompt), 40, 3)
    assert found["image"] == counter.get_total_flops()


def test_the_authors_step_is_the_one_that_is_timed(script, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    timed = importlib.import_module("showo2_step")
    model = tiny_showo2(attention="eager")
    whole = timed.WholeSequence(model, [BOS, 5, 6, 7, START], 4, 40)
    with FlopCounterMode(display=False) as counter:
        whole.velocity(torch.randn(1, 16, 8, 8), 0.3)
    assert script.drawing(model.to("meta"), 8, 5, 40, 3)["their step"] == counter.get_total_flops()


def test_bytes_that_are_alive_at_once(script):
    def call():
        one = torch.empty(1000, device="meta")  # 4,000 bytes
        two = one + 1
        del one
        return (two.view(10, 100) * 2).half()

    assert script.alive(call) == 10_000  # two tensors of floats and one of halves


def test_the_real_sizes_have_the_released_numbers_of_weights(script):
    for name, billions in (("1.5B", 2.83), ("7B", 8.93)):
        weights = sum(one.numel() for key, one in script.build(name).named_parameters() if not key.startswith("vae."))
        assert round(weights / 1e9, 2) == billions


@pytest.mark.parametrize("page", ["docs/showo2.md", "benchmarks/RESULTS.md"])
def test_the_pages_have_what_is_counted(script, page):
    lines = (SCRIPT.parents[1] / page).read_text(encoding="utf-8").splitlines()
    row = next(line.split(" | ") for line in lines if line.startswith("| 1.5B | 432x432 |") and line.count("|") == 9)
    found = script.drawing(script.build("1.5B"), 54, 32, script.DRAWN[432], 49)
    assert row[2:4] == [f"{found[name] / 1e12:,.1f}" for name in ("step", "their step")]
    decoding = float(row[4]) * 1e12
    assert float(row[5]) == pytest.approx((found["image"] + decoding) / 1e12, abs=0.2)
    assert float(row[6]) == pytest.approx((found["their image"] + decoding) / 1e12, abs=0.2)
