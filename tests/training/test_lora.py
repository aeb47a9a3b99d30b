"""LoRA: what moves and what does not, and from training to a merged checkpoint."""

from __future__ import annotations

import builtins
import copy
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from training.test_trainer import _difference, _trainer
from wallaroo_hf import WallarooForConditionalGeneration, WallarooProcessor
from wallaroo_hf.modeling.losses import LOSS_NAMES
from wallaroo_hf.modeling.parts import part_names
from wallaroo_hf.training.lora import add_lora, find_adapter, load_in_4bit, lora_config, merge_adapter
from wallaroo_hf.training.stages import stage

IMAGE_PARTS = part_names()
DOCUMENT = Path(__file__).parents[2] / "docs" / "finetuning.md"
LANGUAGE_LAYERS = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def _codes(model, processor):
    """Greedy codes of a drawing and of an edit-free one in the other size."""
    inputs = processor(
        text=["a red boat", "一只猫"], generation_mode="image", height=32, width=48, return_tensors="pt"
    )
    return model.eval().generate(**inputs, generation_mode="image", do_sample=False)


def _trains(name):
    return ".lora_" in name or any(f".{part}." in name for part in IMAGE_PARTS)


def test_exactly_the_linear_layers_of_the_language_model_are_adapted(model):
    config = lora_config(model)
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    adapted = {name for name in linear if re.fullmatch(config.target_modules, name)}
    assert adapted == {name for name in linear if name.startswith("model.language_model.layers.")}
    assert len(adapted) == 7 * model.config.text_config.num_hidden_layers
    assert set(config.modules_to_save) == set(IMAGE_PARTS)
    few = lora_config(
        model, rank=4, alpha=8, dropout=0.0, target_modules=["q_proj", "gate_proj"], train_image_parts=False
    )
    assert (few.r, few.lora_alpha, few.lora_dropout, few.modules_to_save) == (4, 8, 0.0, None)
    adapted = [name for name in linear if re.fullmatch(few.target_modules, name)]
    assert len(adapted) == 2 * model.config.text_config.num_hidden_layers
    assert not any("visual" in name for name in adapted)


def test_settings_that_fit_nothing_are_refused(model):
    with pytest.raises(ValueError, match="rank is 0"):
        lora_config(model, rank=0)
    for wrong in (["qkv"], ["q_proj", "lm_head"], []):
        with pytest.raises(ValueError, match=", ".join(LANGUAGE_LAYERS)):
            lora_config(model, target_modules=wrong)


def test_only_parts_that_the_checkpoint_has(model):
    del model.edit_head, model.model.edit_adapter, model.model.source_adapter
    assert lora_config(model).modules_to_save == ["generation_adapter", "generation_head"]


def test_what_trains_is_float32(model, processor):
    """A bfloat16 model keeps its type but for that, and still computes outside of autocast."""
    adapted = add_lora(model.to(torch.bfloat16))
    for name, parameter in adapted.named_parameters():
        assert parameter.requires_grad == (_trains(name) and "original_module" not in name), name
        expected = torch.float32 if parameter.requires_grad or "vq_model" in name else torch.bfloat16
        if ".vq_model." not in name:  # the fixture's `.to` is not `from_pretrained`
            assert parameter.dtype == expected, name
    _codes(adapted, processor)


def test_lora_trains_through_the_trainer(model, processor, rows, tmp_path):
    """All losses by name; exactly LoRA and image parts move; the stage's other settings stay."""
    ids = {name: value for name, value in model.config.to_dict().items() if name.endswith("_token_id")}
    adapted = add_lora(model, rank=4, dropout=0.0)
    before = {name: parameter.detach().clone() for name, parameter in adapted.named_parameters()}
    trainer = _trainer(adapted, processor, rows, tmp_path, max_steps=2, optim="adamw_torch")
    trainer.train()
    for entry in trainer.state.log_history[:2]:
        assert {f"loss_{name}" for name in LOSS_NAMES} <= set(entry)
    for name, parameter in adapted.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert moved == (_trains(name) and "original_module" not in name), name
    assert ids == {name: value for name, value in model.config.to_dict().items() if name.endswith("_token_id")}
    assert model.config.stage == "4"


def test_gradient_checkpointing_trains_the_same(model, processor, rows, tmp_path):
    moves = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        adapted = add_lora(copy.deepcopy(model), rank=4, dropout=0.0)
        before = {name: parameter.detach().clone() for name, parameter in adapted.named_parameters()}
        _trainer(adapted, processor, rows, tmp_path, max_steps=2, activation_checkpointing=checkpointing).train()
        moves.append({name: parameter.detach() - before[name] for name, parameter in adapted.named_parameters()})
    assert _difference(*moves) < 1e-4
    assert any(float(move.abs().max()) > 0 for name, move in moves[1].items() if "lora_A" in name)


@pytest.fixture(scope="module")
def run(compact, tmp_path_factory):
    """A LoRA run of four steps with checkpoints of all: its folder, its model and its log."""
    from training.conftest import training_rows

    folder = tmp_path_factory.mktemp("run")
    trainer = _lora_trainer(compact, training_rows(), folder)
    trainer.train()
    trainer.save_model()
    return folder, trainer.model, trainer.state.log_history


def _lora_trainer(compact, rows, folder, max_steps=4):
    model = WallarooForConditionalGeneration.from_pretrained(compact.folder)
    torch.manual_seed(0)
    return _trainer(
        add_lora(model, rank=4),
        copy.deepcopy(compact.processor),
        rows * 2,
        folder,
        max_steps=max_steps,
        optim="adamw_torch",
        per_device_train_batch_size=4,
        save_strategy="steps",
        save_steps=1,
    )


def test_a_resumed_run_equals_one_that_was_not_stopped(run, compact, rows, tmp_path):
    """Also the dropout's random numbers go on where they stopped."""
    _, trained, log = run
    shutil.copytree(run[0] / "checkpoint-2", tmp_path / "checkpoint-2")
    trainer = _lora_trainer(compact, rows, tmp_path)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    expected = {entry["step"]: entry["loss"] for entry in log if "loss" in entry}
    got = {entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}
    assert got == pytest.approx(expected, rel=1e-5)
    for (name, parameter), other in zip(trainer.model.named_parameters(), trained.parameters()):
        assert torch.allclose(parameter, other, atol=1e-6), name


@pytest.mark.parametrize("part", ["", "checkpoint-4"])
def test_a_merged_adapter_draws_what_the_trained_model_draws(run, compact, tmp_path, part):
    folder, trained, _ = run
    steps = []
    path = merge_adapter(compact.folder, folder / part, tmp_path / "merged", progress=steps.append)
    assert len(steps) == 3 and path == tmp_path / "merged"
    merged = WallarooForConditionalGeneration.from_pretrained(path)
    processor = WallarooProcessor.from_pretrained(path)
    codes = _codes(merged, processor)
    assert torch.equal(codes, _codes(trained, processor))
    assert not torch.equal(codes, _codes(compact.model, processor))
    assert merged.state_dict().keys() == compact.model.state_dict().keys()
    assert merged.config.stage == "4"
    assert merged.generation_config.image_guidance_scale == compact.model.generation_config.image_guidance_scale
    assert not list(path.glob("*.bin")) and not list(path.glob("adapter*"))


def test_an_adapter_works_without_merging(run, compact):
    """transformers loads base and adapter from the adapter's folder."""
    folder, trained, _ = run
    loaded = WallarooForConditionalGeneration.from_pretrained(folder)
    processor = WallarooProcessor.from_pretrained(folder)
    assert torch.equal(_codes(loaded, processor), _codes(trained, processor))


def test_dtypes_of_a_merged_checkpoint(run, compact, tmp_path):
    path = merge_adapter(compact.folder, run[0], tmp_path / "merged", dtype=torch.bfloat16)
    for name, tensor in load_file(path / "model.safetensors").items():
        assert tensor.dtype == (torch.float32 if "vq_model" in name else torch.bfloat16), name
    assert WallarooForConditionalGeneration.from_pretrained(path).dtype == torch.bfloat16


def test_a_run_whose_last_checkpoint_is_broken_gives_the_one_before(run, tmp_path):
    folder = shutil.copytree(run[0], tmp_path / "run", ignore=shutil.ignore_patterns("adapter_*", "unfinished"))
    for step in (3, 4):
        shutil.copytree(run[0] / f"checkpoint-{step}", folder / f"checkpoint-{step}", dirs_exist_ok=True)
    weights = folder / "checkpoint-4" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert find_adapter(folder) == folder / "checkpoint-3"
    with pytest.raises(ValueError, match="missing or damaged"):
        find_adapter(folder / "checkpoint-4")


def test_editing_parts_that_training_added_come_with_the_adapter(run, compact, tmp_path):
    """A base of stage 3b, of which stage 4 was made before training."""
    base = copy.deepcopy(compact.model)
    del base.edit_head, base.model.edit_adapter, base.model.source_adapter
    base.config.has_editing, base.config.stage = False, "3b"
    base.save_pretrained(tmp_path / "base")
    compact.processor.save_pretrained(tmp_path / "base")
    path = merge_adapter(tmp_path / "base", run[0], tmp_path / "merged")
    merged = WallarooForConditionalGeneration.from_pretrained(path)
    assert merged.config.has_editing and merged.config.stage == "4"
    trained = run[1].get_base_model().edit_head.modules_to_save["default"]
    assert torch.equal(merged.edit_head[0].weight, trained[0].weight)
    without = _edited_adapter(run[0], tmp_path, lambda tensors: _drop(tensors, "edit_head"))
    with pytest.raises(ValueError, match="train_image_parts"):
        merge_adapter(tmp_path / "base", without, tmp_path / "again")


def _drop(tensors, word):
    return {name: tensor for name, tensor in tensors.items() if word not in name}


def _edited_adapter(folder, tmp_path, change):
    copied = tmp_path / "edited"
    shutil.copytree(folder, copied, ignore=shutil.ignore_patterns("checkpoint-*"))
    save_file(change(load_file(copied / "adapter_model.safetensors")), copied / "adapter_model.safetensors")
    return copied


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: _drop(tensors, "layers.2."),
        lambda tensors: {**tensors, "base_model.model.more.weight": torch.zeros(1)},
        lambda tensors: {name: tensor[..., :-1].contiguous() for name, tensor in tensors.items()},
    ],
    ids=["missing", "unknown", "shape"],
)
def test_an_adapter_that_does_not_fit_is_refused(run, compact, tmp_path, change):
    folder = _edited_adapter(run[0], tmp_path, change)
    with pytest.raises(ValueError, match="does not fit the base"):
        merge_adapter(compact.folder, folder, tmp_path / "merged")
    assert not (tmp_path / "merged").exists() and len(list(tmp_path.iterdir())) == 1


def test_what_is_not_there_is_named(run, compact, tmp_path):
    with pytest.raises(ValueError, match="There is no adapter"):
        merge_adapter(compact.folder, tmp_path / "nowhere", tmp_path / "merged")
    with pytest.raises(ValueError, match=r"holds no adapter_config\.json"):
        merge_adapter(compact.folder, compact.folder, tmp_path / "merged")
    with pytest.raises(ValueError, match="No base checkpoint"):
        merge_adapter(tmp_path / "nowhere", run[0], tmp_path / "merged")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ValueError, match="not empty"):
        merge_adapter(compact.folder, run[0], tmp_path / "full")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_libraries_that_are_missing_are_named(model, compact, monkeypatch):
    importing = builtins.__import__

    def without_peft(name, *args, **kwargs):
        if name == "peft":
            raise ImportError(name)
        return importing(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_peft)
    with pytest.raises(ImportError, match=r"wallaroo-hf\[train\]"):
        add_lora(model)
    monkeypatch.setattr("wallaroo_hf.training.lora.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"wallaroo-hf\[train,quant\]"):
        load_in_4bit(compact.folder)


def test_qlora(compact, processor, rows, tmp_path):
    """A 4-bit base: only what should trains, the rest keeps its types, and the adapter merges into the whole base."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    model = load_in_4bit(compact.folder, compute_dtype=torch.float32)
    adapted = add_lora(model, rank=4, dropout=0.0)
    quantized = {name for name, module in model.named_modules() if isinstance(module, bitsandbytes.nn.Linear4bit)}
    assert quantized and all("language_model" in name or "visual" in name for name in quantized)
    before = {name: parameter.detach().clone() for name, parameter in adapted.named_parameters()}
    trainer = _trainer(
        adapted, processor, rows, tmp_path, max_steps=2, optim="adamw_torch", activation_checkpointing=True
    )
    trainer.train()
    for name, parameter in adapted.named_parameters():
        assert torch.equal(parameter, before[name]) != (_trains(name) and "original_module" not in name), name
    trainer.save_model()
    merged = WallarooForConditionalGeneration.from_pretrained(
        merge_adapter(compact.folder, tmp_path, tmp_path / "merged")
    )
    assert not getattr(merged, "is_quantized", False)
    assert not torch.equal(merged.generation_head[0].weight, compact.model.generation_head[0].weight)
    assert "quantization_config" not in json.loads((tmp_path / "merged" / "config.json").read_text())


def test_documented_memory(full_size):
    """Frozen weights (LoRA: docs/memory.md, checked there); float32 weights, gradients and AdamW's means of the rest."""
    everything = sum(p.numel() for name, p in full_size.named_parameters() if stage("4").is_trained(name))
    frozen = sum(parameter.numel() for parameter in full_size.parameters()) - everything
    with torch.device("meta"):
        adapted = add_lora(copy.deepcopy(full_size), rank=16)
    sizes = {name: p.numel() for name, p in adapted.named_parameters() if p.requires_grad}
    lora = sum(size for name, size in sizes.items() if "lora_" in name)
    documented = DOCUMENT.read_text(encoding="utf-8").splitlines()
    for name, trained, base in (
        ("everything", everything, 4 * frozen / 2**30),
        ("LoRA, rank 16", sum(sizes.values()), 16.05),
        ("LoRA, rank 16, image parts frozen", lora, 16.05),
        ("QLoRA, rank 16", sum(sizes.values()), 6.10),
    ):
        states = 16 * trained / 2**30
        assert f"| {name} | {trained / 1e6:,.0f} M | {base:.2f} | {states:.2f} | {base + states:.1f} |" in documented
