"""One rule of precision for every door."""

from __future__ import annotations

import pytest
import torch

from commands import run
from wallaroo_hf import default_checkpoint
from wallaroo_hf.families.precision import loading_dtype, read_dtype
from wallaroo_hf.families.registry import load
from wallaroo_hf.training.run import RunOptions, _load, fine_tuning


@pytest.fixture
def without_bf16(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})


def test_auto_is_float32_where_bfloat16_is_slow(without_bf16):
    assert loading_dtype("auto", "cpu") == "float32" and loading_dtype("auto", "cuda:1") == "auto"
    assert loading_dtype("bfloat16", "cpu") == "bfloat16"  # what is asked for is done
    assert load(default_checkpoint(), "cpu").model.dtype == torch.float32
    assert load(default_checkpoint(), "cpu", "bfloat16").model.dtype == torch.bfloat16


def test_auto_is_the_checkpoints_elsewhere(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert loading_dtype("auto", "cpu") == "auto"
    assert load(default_checkpoint(), "cpu").model.dtype == torch.bfloat16


@pytest.mark.parametrize("fast", [True, False])
def test_the_base_of_lora_too(monkeypatch, tmp_path, fast):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": fast})
    options = RunOptions(default_checkpoint(), tmp_path, lora=True, device="cpu")
    chosen = fine_tuning(options.model, {"generation": 1}, lora=True)
    from wallaroo_hf.training.run import _kit_with

    model, _ = _load(options, chosen, _kit_with(options))
    assert model.dtype == (torch.bfloat16 if fast else torch.float32)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("fp16", "`dtype` is 'fp16', but must be auto, bfloat16, float16 or float32; did you mean float16?"),
        ("bf16", "did you mean bfloat16?"),
        ("float", "did you mean float32?"),
        ("flaot32", "did you mean float32?"),
        ("int8", "must be auto, bfloat16, float16 or float32"),
    ],
)
def test_other_words_are_refused(given, words):
    with pytest.raises(ValueError) as caught:
        read_dtype(given)
    assert words in str(caught.value)


def test_a_torch_dtype_is_read():
    assert read_dtype(torch.float16) == "float16"


@pytest.mark.parametrize(
    "command",
    [
        ("generate", "a red heart"),
        ("ask", "{picture}", "What is it?"),
        ("edit", "{picture}", "make it blue"),
        ("chat",),
    ],
    ids=lambda command: command[0],
)
def test_commands_say_so(command, tmp_path):
    from PIL import Image

    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    words = [word.format(picture=tmp_path / "a.png") for word in command]
    output = ("-o", tmp_path / "out") if command[0] != "ask" else ()
    assert "did you mean float16?" in " ".join(run(*words, *output, "--dtype", "fp16", code=1).split())
