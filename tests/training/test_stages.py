"""The recipe's numbers, its overrides, what each stage trains, and what a checkpoint needs to start one."""

import copy
import json
import logging

import pytest
import torch

from conftest import REFERENCE
from conversion.test_key_map import released_keys
from wallaroo_hf import WallarooForConditionalGeneration, WallarooProcessor
from wallaroo_hf.conversion.key_map import checkpoint_key
from wallaroo_hf.training.arguments import WallarooTrainingArguments
from wallaroo_hf.training.callbacks import StageCallback
from wallaroo_hf.training.collator import Numbered, WallarooDataCollator
from wallaroo_hf.training.preparation import add_editing_parts, prepare_for_stage
from wallaroo_hf.training.stages import check_order, read_overrides, stage
from wallaroo_hf.training.trainer import WallarooTrainer

PAPER = {  # Table 1: learning rate, warm-up, steps, batch, understanding : generation : editing
    "1": (1e-4, 1000, 30_000, 256, (0, 1, 0)),
    "2": (1e-4, 5000, 300_000, 320, (1, 4, 0)),
    "3a": (4e-5, 0, 50_000, 384, (1, 2, 0)),
    "3b": (1e-5, 0, 50_000, 384, (1, 2, 0)),
    "4": (1e-5, 0, 55_000, 384, (1, 1, 1)),
}


@pytest.mark.parametrize("name", PAPER)
def test_numbers_of_the_paper(name):
    chosen = stage(name)
    ratio = tuple(chosen.task_ratio.get(task, 0) for task in ("understanding", "generation", "editing"))
    numbers = (chosen.learning_rate, chosen.warmup_steps, chosen.max_steps, chosen.global_batch_size, ratio)
    assert numbers == PAPER[name]
    arguments = chosen.training_arguments()
    assert (arguments["adam_beta1"], arguments["adam_beta2"], arguments["adam_epsilon"]) == (0.9, 0.95, 1e-8)
    assert (arguments["weight_decay"], arguments["max_grad_norm"], arguments["bf16"]) == (0.0, 1.0, True)
    assert chosen.max_length == 4096
    assert chosen.pixel_limits["longest_edge"] == (188160 if name == "4" else 254016)
    layout = chosen.named_layout()
    assert layout.line_breaks == bool(layout.indicators) == (name in ("3b", "4"))


def _recorded_trainable(record_name):
    """Names that the released scripts train: recorded where the recordings are, else by the rule they follow."""
    path = REFERENCE / "keys" / "trainable_per_stage.json"
    if path.exists():
        return set(json.loads(path.read_text(encoding="utf-8"))[record_name]["trainable"])
    keys = released_keys(has_editing=record_name == "stage4_omini")
    prefixes = ("gen_image_head.", "gen_input_adpater.")
    return {
        key
        for key in keys
        if (key.startswith(prefixes) if record_name == "stage1" else not key.startswith("wallaroo.visual."))
    }


@pytest.mark.parametrize(
    ("name", "record_name"),
    [
        ("1", "stage1"),
        ("2", "stage2_and_stage3"),
        ("3a", "stage2_and_stage3"),
        ("3b", "stage2_and_stage3"),
        ("4", "stage4_omini"),
    ],
)
def test_trained_parameters_are_the_released_ones(name, record_name):
    keys = released_keys(has_editing=name == "4")
    ours = {key for key in keys if stage(name).is_trained(checkpoint_key(key))}
    assert ours == _recorded_trainable(record_name)


def test_overrides_come_as_yaml_and_words(tmp_path):
    file = tmp_path / "stage.yaml"
    file.write_text("learning_rate: 2e-5\nbuckets: [[96, 96], [64, 128]]\nbf16: false\nmax_steps: 7\n")
    chosen = stage(4).override(read_overrides(file, ["max_steps=9", "task_ratio={editing: 1}"]))
    assert chosen.learning_rate == 2e-5
    assert chosen.buckets == chosen.named_layout().buckets == ((96, 96), (64, 128))
    assert (chosen.bf16, chosen.max_steps, dict(chosen.task_ratio)) == (False, 9, {"editing": 1})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"learning_rat": 1}, "did you mean `learning_rate`"),
        ({"name": "5"}, "no setting `name`"),
        ({"learning_rate": "fast"}, "must be a number, such as"),
        ({"max_steps": 1.5}, "must be a whole number"),
        ({"bf16": "yes"}, "must be true or false"),
        ({"task_ratio": {"drawing": 1}}, "understanding, generation, editing"),
        ({"task_ratio": {"editing": 0}}, "above 0"),
        ({"buckets": [1, 2]}, "kind of"),
        ({"trains": "everything"}, "generation_parts"),
        ({"source_mask_rate": 1.0}, r"\[0, 1\)"),
        ({"max_length": 0}, "at least 1"),
    ],
)
def test_bad_overrides_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        stage(4).override(settings)


def test_bad_override_sources_are_refused(tmp_path):
    with pytest.raises(ValueError, match="sets nothing"):
        read_overrides(None, ["fast"])
    with pytest.raises(ValueError, match="could not be read"):
        read_overrides(tmp_path / "missing.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match="no mapping"):
        read_overrides(tmp_path / "list.yaml")
    with pytest.raises(ValueError, match="must be one of"):
        stage("5")


def test_order_of_stages():
    assert check_order("3b", stage(4)) is None
    assert check_order("4", stage(4)) is None
    assert "does not say" in check_order(None, stage(4))
    assert check_order(None, stage(0)) is None
    with pytest.raises(ValueError, match=r"stage 3b, but this one is of stage 2.*--force"):
        check_order("2", stage(4))
    assert "forced" in check_order("2", stage(4), force=True)


def _tiny_stage(name, **more):
    small = {
        "buckets": [[32, 32]] if name in ("0", "1", "2", "3a") else [[32, 32], [32, 48]],
        "indicator_sizes": [32, 48],
    }
    return stage(name).override(
        {
            **small,
            "warmup_steps": 0,
            "bf16": False,
            "max_steps": 2,
            "global_batch_size": 8,
            "learning_rate": 1e-3,
            **more,
        }
    )


def _without_editing(model):
    del model.model.source_adapter, model.model.edit_adapter, model.edit_head
    model.config.has_editing = model.model.config.has_editing = False
    return model


def _train(model, processor, chosen, rows, folder, **kwargs):
    arguments = WallarooTrainingArguments.for_stage(
        chosen,
        str(folder),
        4,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        logging_steps=1,
        save_strategy="steps",
        save_steps=2,
        **kwargs,
    )
    trainer = WallarooTrainer(
        model=model,
        args=arguments,
        train_dataset=Numbered(rows),
        data_collator=WallarooDataCollator.for_stage(processor, chosen),
        processing_class=processor,
        callbacks=[StageCallback(chosen)],
    )
    trainer.train()
    return trainer


def _rows_for(rows, chosen):
    square = [{**row, "height": 32, "width": 32} if "height" in row else row for row in rows]
    drawings = [row for row in square if "height" in row and len(row["images"]) == 1]
    answers = [row for row in square if "height" not in row]
    edits = [row for row in square if "height" in row and len(row["images"]) == 2]
    by_task = {"understanding": answers, "generation": drawings, "editing": edits}
    return [row for task, share in chosen.task_ratio.items() if share for row in by_task[task]] * 4


@pytest.mark.parametrize("name", ["0", "1", "2", "3a", "3b", "4"])
def test_a_stage_moves_its_parameters_and_no_other(model, processor, rows, tmp_path, name):
    previous = {"0": None, "1": "0", "2": "1", "3a": "2", "3b": "3a", "4": "3b"}[name]
    _without_editing(model).config.stage = previous
    chosen = _tiny_stage(name)
    prepare_for_stage(model, processor, chosen)
    before = {key: parameter.clone() for key, parameter in model.named_parameters()}
    trainer = _train(model, processor, chosen, _rows_for(rows, chosen), tmp_path)
    assert all(torch.isfinite(torch.tensor(entry.get("loss", 0.0))) for entry in trainer.state.log_history)
    for key, parameter in model.named_parameters():
        moved = not torch.equal(parameter, before[key])
        assert moved == chosen.is_trained(key), key
    folder = tmp_path / "checkpoint-2"
    loaded = WallarooForConditionalGeneration.from_pretrained(folder)
    again = WallarooProcessor.from_pretrained(folder)
    assert loaded.config.stage == name
    assert again.line_breaks == loaded.generation_config.line_breaks == (name in ("3b", "4"))
    assert again.has_editing == loaded.config.has_editing == (name == "4")
    assert [tuple(bucket) for bucket in again.buckets] == list(chosen.buckets)


def test_stage_4_can_start_its_editing_parts_as_copies(model):
    _without_editing(model)
    add_editing_parts(model, "generation")
    assert torch.equal(model.edit_head[2].weight, model.generation_head[2].weight)
    model.edit_head[2].weight.data.zero_()
    assert model.generation_head[2].weight.abs().sum() > 0
    _without_editing(model)
    torch.manual_seed(0)
    add_editing_parts(model)
    assert not torch.equal(model.edit_head[2].weight, model.generation_head[2].weight)
    assert model.edit_head[2].weight.std() < 0.1
    assert (model.model.edit_adapter[0].bias == 0).all()


def test_the_wrong_stage_is_refused_and_an_unknown_one_warned_of(model, processor, tmp_path, caplog):
    arguments = WallarooTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    model.config.stage = "2"
    with pytest.raises(ValueError, match="stage 3b, but this one is of stage 2"):
        WallarooTrainer(model=model, args=arguments, callbacks=[StageCallback(_tiny_stage("4"))])
    with pytest.raises(ValueError, match="no editing"):
        prepare_for_stage(model, processor, _tiny_stage("3a"))
    with pytest.raises(ValueError, match="call `prepare_for_stage` first"):
        WallarooTrainer(model=model, args=arguments, callbacks=[StageCallback(_tiny_stage("3a"))])
    model.config.stage = None
    with caplog.at_level(logging.WARNING):
        WallarooTrainer(model=model, args=arguments, callbacks=[StageCallback(_tiny_stage("4"))])
    assert "does not say which stage" in caplog.text
    assert model.config.stage == "4"


def test_too_many_tokens_for_the_embedding_table_are_refused(model, processor):
    model.config.stage = "3b"
    sizes = list(range(16, 16 * 900, 16))
    many = stage(4).override({"indicator_sizes": sizes})
    before = copy.deepcopy(processor)
    if len(before.tokenizer) + len(sizes) <= model.get_input_embeddings().num_embeddings:
        pytest.skip("this set's table has room")
    with pytest.raises(ValueError, match="resize_token_embeddings"):
        prepare_for_stage(model, processor, many)


def _with_sizes(processor, buckets, edges):
    """A checkpoint with sizes of its own."""
    processor.tokenizer.add_tokens([f"<indicator:{edge}>" for edge in edges], special_tokens=True)
    processor.buckets, processor.indicator_sizes = list(buckets), list(edges)


@pytest.mark.parametrize("recorded", ["3b", "4"])
@pytest.mark.parametrize(
    ("named", "buckets", "edges"),
    [
        ({}, [(64, 96), (96, 64)], [64, 96]),
        ({"buckets": [[96, 96]]}, [(96, 96)], [64, 96]),
        ({"indicator_sizes": [96, 64]}, [(64, 96), (96, 64)], [96, 64]),
        ({"buckets": [[64, 64]], "indicator_sizes": [64]}, [(64, 64)], [64]),
        ({"learning_rate": 1e-3}, [(64, 96), (96, 64)], [64, 96]),
    ],
)
def test_a_stage_changes_the_sizes_that_are_named_and_no_others(
    model, processor, caplog, recorded, named, buckets, edges
):
    _with_sizes(processor, [(64, 96), (96, 64)], [64, 96])
    model.config.stage = recorded
    known = len(processor.tokenizer)
    with caplog.at_level(logging.WARNING):
        prepare_for_stage(model, processor, stage(4).override(named))
    assert (processor.buckets, processor.indicator_sizes) == (buckets, edges)
    assert len(processor.tokenizer) == known
    assert "no indicator" not in caplog.text


def test_a_size_without_an_indicator_is_said(model, processor, caplog):
    _with_sizes(processor, [(64, 96), (96, 64)], [64, 96])
    model.config.stage = "4"
    with caplog.at_level(logging.WARNING):
        prepare_for_stage(model, processor, stage(4).override({"buckets": [[64, 96], [64, 128], [160, 64]]}))
    assert "The sizes 64x128, 160x64 have no indicator of their own" in caplog.text
    assert "the nearest of 64, 96" in caplog.text


def test_a_step_of_the_recipe_brings_its_own_buckets(model, processor):
    _without_editing(model).config.stage = "2"
    processor.buckets, processor.line_breaks, processor.size_indicators = [(384, 384)], False, False
    prepare_for_stage(model, processor, stage("3a"))
    assert processor.buckets == [(512, 512)]
    model.config.stage = "3a"
    prepare_for_stage(model, processor, stage("3b"))
    assert processor.buckets == list(stage("3b").named_layout().buckets)
    assert processor.line_breaks and processor.size_indicators
    with pytest.raises(ValueError, match="Stage setting `buckets` is "):
        stage("3b").override({"buckets": []})


def test_global_batch_is_made_up_by_accumulation(tmp_path, monkeypatch):
    chosen = stage(4).override({"bf16": False})
    assert (
        WallarooTrainingArguments.for_stage(chosen, str(tmp_path), 4, use_cpu=True).gradient_accumulation_steps == 96
    )
    with pytest.raises(ValueError, match="cannot make up"):
        WallarooTrainingArguments.for_stage(chosen, str(tmp_path), 5, use_cpu=True)
