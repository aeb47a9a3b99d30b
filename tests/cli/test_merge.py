"""`wallaroo merge`."""

from __future__ import annotations

import copy

import pytest
import torch
from PIL import Image

from commands import run
from wallaroo_hf import WallarooForConditionalGeneration
from wallaroo_hf.training.lora import add_lora


@pytest.fixture
def adapter(compact, tmp_path):
    """An adapter that changes what is drawn."""
    adapted = add_lora(copy.deepcopy(compact.model), rank=2)
    torch.manual_seed(0)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += 0.02 * torch.randn_like(parameter)
    adapted.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_merge(compact, adapter, tmp_path):
    out = run("merge", compact.folder, adapter, "-o", tmp_path / "merged", "--dtype", "bfloat16")
    assert f"Merged into {tmp_path / 'merged'}" in out.replace("\n", "")
    model = WallarooForConditionalGeneration.from_pretrained(tmp_path / "merged")
    assert model.dtype == torch.bfloat16
    head, before = model.generation_head[2].weight, compact.model.generation_head[2].weight
    assert not torch.allclose(head.float(), before, atol=1e-3)
    drawing = ("--height", 32, "--width", 48, "--seed", 1, "-m", tmp_path / "merged", "--device", "cpu")
    run("generate", "a cat", "-o", tmp_path / "cat.png", *drawing)
    assert Image.open(tmp_path / "cat.png").size == (48, 32)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{base}", "nowhere", "-o", "out"), "There is no adapter"),
        (("nowhere", "{adapter}", "-o", "out"), "No base checkpoint"),
        (("{base}", "{adapter}", "-o", "{base}"), "not empty"),
        (("{base}", "{adapter}", "-o", "out", "--dtype", "int8"), "bfloat16"),
    ],
)
def test_errors_are_one_sentence(compact, adapter, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    paths = {"base": compact.folder, "adapter": adapter}
    out = run("merge", *(argument.format(**paths) for argument in arguments), code=1)
    assert words in out.replace("\n", " ") and "Traceback" not in out
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_without_peft_the_extra_is_named(compact, adapter, tmp_path, monkeypatch):
    def missing():
        raise ImportError('LoRA needs peft; run `pip install "wallaroo-hf[train]"`.')

    monkeypatch.setattr("wallaroo_hf.training.lora._peft", missing)
    assert "wallaroo-hf[train]" in run("merge", compact.folder, adapter, "-o", tmp_path / "merged", code=1)
