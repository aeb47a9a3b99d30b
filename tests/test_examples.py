"""Every example runs on the tiny checkpoint."""

import runpy
import sys

import pytest
import torch
from PIL import Image
from transformers import LogitsProcessorList

from helpers import picture
from test_architecture import SOURCE

EXAMPLES = SOURCE.parents[1] / "examples"


@pytest.fixture
def run(monkeypatch, compact, capsys):
    """Runs an example as a script and returns what it printed."""

    def run_example(name, *arguments):
        command = [str(EXAMPLES / f"{name}.py"), *map(str, arguments), "--model", str(compact.folder)]
        monkeypatch.setattr(sys, "argv", command)
        runpy.run_path(command[0], run_name="__main__")
        return capsys.readouterr().out

    return run_example


def test_draw(run, tmp_path):
    out = run("draw", "a cat", "--height", 160, "--width", 64, "--output", tmp_path / "cat.png")
    assert "cat.png" in out and Image.open(tmp_path / "cat.png").size == (64, 160)


def test_edit(run, tmp_path, monkeypatch):
    picture(1, 60, 45).save(tmp_path / "source.png")
    run("edit", tmp_path / "source.png", "make it blue", "--output", tmp_path / "blue.png")
    assert Image.open(tmp_path / "blue.png").size == (60, 45)


def test_ask(run, tmp_path):
    picture(1).save(tmp_path / "source.png")
    assert run("ask", tmp_path / "source.png", "What is it?", "--max-new-tokens", 5).strip()


def test_story(run, tmp_path, monkeypatch, compact):
    """The tiny model would never draw by itself, so its text head is made to want to."""
    from wallaroo_hf import WallarooForConditionalGeneration

    start = compact.model.config.generate_start_token_id
    generate = WallarooForConditionalGeneration._get_logits_processor

    def draws_soon(self, generation_config, *args, **kwargs):
        processors = generate(self, generation_config, *args, **kwargs)
        if generation_config.eos_token_id is None:
            return processors  # a drawing segment

        def want(input_ids, scores):
            return scores.index_fill(1, torch.tensor([start]), 1e4 if int(input_ids[0, -1]) != start else -1e4)

        return LogitsProcessorList([*processors, want])

    monkeypatch.setattr(WallarooForConditionalGeneration, "_get_logits_processor", draws_soon)
    size = ("--height", 32, "--width", 48, "--max-new-tokens", 2)
    out = run("story", "Draw twice.", "--output", tmp_path / "story", *size)
    assert out.count(".png") == 2
    assert Image.open(tmp_path / "story" / "2.png").size == (48, 32)


def test_demo(run, tmp_path):
    out = run("demo", "--output", tmp_path)
    assert "demo.png" in out and "How many circles" in out
    assert Image.open(tmp_path / "demo.png").width > 300
