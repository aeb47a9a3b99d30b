"""Training a third image task that only the tests know: what the trainer, LoRA and reports take from the table."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from helpers import picture
from inpainting import INPAINTING, with_inpainting
from training.conftest import drawing_row
from wallaroo_hf.modeling.parts import IMAGE_TASKS, loss_names, part_names
from wallaroo_hf.training.arguments import WallarooTrainingArguments
from wallaroo_hf.training.callbacks import StageCallback
from wallaroo_hf.training.collator import Numbered, WallarooDataCollator
from wallaroo_hf.training.lora import add_lora
from wallaroo_hf.training.preparation import add_image_parts
from wallaroo_hf.training.reports import plot_losses
from wallaroo_hf.training.stages import stage
from wallaroo_hf.training.trained_parts import PARTS
from wallaroo_hf.training.trainer import WallarooTrainer


def _train(model, processor, rows, folder, steps=1, **kwargs):
    rows = [*rows, drawing_row("fill the hole", picture(11), picture(12), height=32, width=32)]
    collator = WallarooDataCollator(processor, unconditional_rate=0.0)
    arguments = WallarooTrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=9,
        learning_rate=1e-2,
        optim="sgd",
        save_strategy="no",
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        **kwargs,
    )
    trainer = WallarooTrainer(
        model=model,
        args=arguments,
        train_dataset=Numbered(rows),
        eval_dataset=Numbered(rows),
        data_collator=collator,
        processing_class=processor,
        callbacks=[StageCallback(replace(stage("4"), trains=("all", *INPAINTING.prefixes)), force=True)],
    )
    trainer.train()
    return trainer


def test_its_loss_is_logged_weighted_and_plotted(model, processor, rows, tmp_path):
    model, processor = with_inpainting(model, processor)
    before = copy.deepcopy(model.state_dict())
    trainer = _train(model, processor, rows, tmp_path, loss_weights={"inpainting": 0.5})
    log, names = trainer.state.log_history[0], loss_names(model.config.image_tasks)
    parts = {name: log[f"loss_{name}"] for name in names}  # every one of them
    weighted = sum(value * (0.5 if name.startswith("inpainting") else 1.0) for name, value in parts.items())
    assert log["loss"] == pytest.approx(weighted, rel=1e-5)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    for part in part_names(model.config.image_tasks):
        assert any(f"{part}." in name for name in moved), part
    results = trainer.evaluate()
    assert results["eval_loss_inpainting_image"] > 0
    plot = plot_losses(trainer.state.log_history, tmp_path / "losses.svg").read_text(encoding="utf-8")
    assert plot.count("<!-- inpainting -->") == 2 and "<!-- inpainting (evaluation) -->" in plot
    assert plot.count("<!-- editing -->") == 2


def test_stages_name_the_parts_of_every_task():
    """The words of a stage's `trains` come from the table, and `all` is all of them."""
    for task in IMAGE_TASKS:
        assert PARTS[f"{task.name}_parts"] == task.prefixes
        assert set(task.prefixes) <= set(PARTS["all"]) and not set(task.prefixes) & set(PARTS["understanding_parts"])


def test_lora_trains_its_parts_whole(model, processor, rows, tmp_path):
    model, processor = with_inpainting(model, processor)
    before = model.inpaint_head[2].weight.detach().clone()
    adapted = add_lora(model)
    assert {"inpaint_adapter", "inpaint_head", "edit_head"} <= set(adapted.peft_config["default"].modules_to_save)
    trainer = _train(adapted, processor, rows, tmp_path)
    assert trainer.state.log_history[0]["loss_inpainting_image"] > 0
    trained = trainer.wallaroo.inpaint_head.modules_to_save["default"][2].weight
    assert not torch.equal(trained, before)


@pytest.mark.parametrize("init", ["random", "generation"])
def test_parts_are_given_to_a_checkpoint_without(model, processor, init):
    without, _ = with_inpainting(model, processor, has_inpainting=False)
    source = without.model.source_adapter[0].weight.detach().clone()
    add_image_parts(without, INPAINTING, init)
    assert without.config.has_inpainting and without.model.config.has_inpainting
    for new, like in (
        (without.inpaint_head, without.generation_head),
        (without.model.inpaint_adapter, without.model.generation_adapter),
    ):
        same = [torch.equal(*pair) for pair in zip(new.parameters(), like.parameters(), strict=True)]
        assert same == [True] * len(same) if init == "generation" else not all(same)
    assert torch.equal(without.model.source_adapter[0].weight, source)  # was there, and stays
