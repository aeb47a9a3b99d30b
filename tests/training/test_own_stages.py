"""Stages that are not the paper's: what they train, which layout they speak, what they follow, and what is refused."""

import copy
import dataclasses
import json

import pytest
import torch

from wallaroo_hf import WallarooForConditionalGeneration, WallarooProcessor, default_checkpoint
from wallaroo_hf.layout import Layout
from wallaroo_hf.layout.checkpoint_layout import PAPER_LAYOUTS
from wallaroo_hf.training import stages
from wallaroo_hf.training.arguments import WallarooTrainingArguments
from wallaroo_hf.training.callbacks import StageCallback
from wallaroo_hf.training.collator import Numbered, WallarooDataCollator
from wallaroo_hf.training.preparation import prepare_for_stage
from wallaroo_hf.training.run import fine_tuning
from wallaroo_hf.training.stages import Stage, check_order, stage
from wallaroo_hf.training.trained_parts import PARTS
from wallaroo_hf.training.trainer import WallarooTrainer


def own_stage(name="5", **settings):
    """A stage of a user's: small, and only the edit head moves."""
    small = {"learning_rate": 1e-3, "warmup_steps": 0, "max_steps": 2, "global_batch_size": 4, "bf16": False}
    mine = {"follows": ("4",), "trains": ("edit_head.",), "task_ratio": {"editing": 1}}
    return Stage(name=name, **{**small, **mine, **settings})


def trainer_of(model, processor, chosen, rows, folder):
    arguments = WallarooTrainingArguments.for_stage(
        chosen, str(folder), 4, report_to=[], use_cpu=True, disable_tqdm=True, logging_steps=1, save_steps=2
    )
    edits = [row for row in rows if len(row["images"]) == 2 and "height" in row]
    return WallarooTrainer(
        model=model,
        args=arguments,
        train_dataset=Numbered(edits * 4),
        data_collator=WallarooDataCollator.for_stage(processor, chosen),
        processing_class=processor,
        callbacks=[StageCallback(chosen)],
    )


def moved_parts(model, before):
    return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}


def test_a_stage_that_trains_only_the_edit_head(model, processor, rows, tmp_path):
    """It keeps the checkpoint's layout, is recorded under its own name, and training goes on from there."""
    chosen = own_stage()
    layout = Layout.read(model.config, processor)
    drawing = {name: getattr(model.generation_config, name, None) for name in layout.generation_settings()}
    settings, tokens = processor.to_dict(), len(processor.tokenizer)
    prepare_for_stage(model, processor, chosen)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    trainer_of(model, processor, chosen, rows, tmp_path).train()
    heads = {name for name in before if name.startswith("edit_head.")}
    assert heads and moved_parts(model, before) == heads
    assert Layout.read(model.config, processor) == layout

    saved = tmp_path / "checkpoint-2"
    loaded, again = WallarooForConditionalGeneration.from_pretrained(saved), WallarooProcessor.from_pretrained(saved)
    assert loaded.config.stage == "5" and Layout.read(loaded.config, again) == layout
    assert (again.to_dict(), len(again.tokenizer)) == (settings, tokens)
    assert {name: getattr(loaded.generation_config, name, None) for name in drawing} == drawing

    longer = dataclasses.replace(chosen, max_steps=3)  # the same run, prolonged
    prepare_for_stage(loaded, again, longer)
    trainer_of(loaded, again, longer, rows, tmp_path).train(resume_from_checkpoint=str(saved))
    assert moved_parts(loaded, dict(model.named_parameters())) == heads
    following = own_stage("my-stage", follows=("5",), trains=("edit_adapter.", "source_adapter."))
    prepare_for_stage(loaded, again, following)
    before = {name: parameter.clone() for name, parameter in loaded.named_parameters()}
    trainer_of(loaded, again, following, rows, tmp_path / "next").train()
    assert {name.split(".")[1] for name in moved_parts(loaded, before)} == {"edit_adapter", "source_adapter"}
    assert loaded.config.stage == "my-stage" and Layout.read(loaded.config, again) == layout


def test_rows_that_teach_the_stage_nothing_take_their_turn(model, processor, rows, tmp_path):
    """Beside others they change nothing of what is learned; alone they move nothing."""
    chosen = own_stage(task_ratio={"editing": 1, "understanding": 1}, global_batch_size=2, max_steps=1)
    edit = next(row for row in rows if len(row["images"]) == 2 and "height" in row)
    answer = next(row for row in rows if "height" not in row)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    moved = []
    for data in ([answer, answer], [edit, answer], [answer, edit]):
        mine, arguments = copy.deepcopy(model), {"report_to": [], "use_cpu": True, "disable_tqdm": True}
        trainer = WallarooTrainer(
            model=mine,
            args=WallarooTrainingArguments.for_stage(chosen, str(tmp_path), 1, save_strategy="no", **arguments),
            train_dataset=Numbered(data),
            data_collator=WallarooDataCollator.for_stage(processor, chosen),
            callbacks=[StageCallback(chosen)],
        )
        trainer.train()
        moved.append(moved_parts(mine, before))
    assert moved[0] == set() and moved[1] == moved[2] == {name for name in before if name.startswith("edit_head.")}


def test_the_built_in_checkpoint_takes_it():
    folder = default_checkpoint()
    model = WallarooForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    processor = WallarooProcessor.from_pretrained(folder)
    layout = Layout.read(model.config, processor)
    prepare_for_stage(model, processor, own_stage())
    assert Layout.read(model.config, processor) == layout and layout.buckets[0] == (96, 96)


def test_a_checkpoint_without_line_breaks_keeps_its_plain_grid(model, processor):
    """And the edges that it would announce later."""
    model.config.stage, processor.line_breaks, processor.size_indicators = "2", False, False
    processor.buckets, processor.indicator_sizes = [(64, 64)], [64, 96]
    model.generation_config.line_breaks, model.config.indicator_token_ids = False, []
    prepare_for_stage(model, processor, own_stage("my-stage", follows=("2",), trains="generation_parts"))
    assert Layout.read(model.config, processor).buckets == ((64, 64),)
    assert (processor.line_breaks, processor.size_indicators, processor.indicator_sizes) == (False, False, [64, 96])
    assert model.generation_config.line_breaks is False and list(model.config.indicator_token_ids) == []


def test_a_stage_may_name_a_layout_of_its_own(model, processor):
    model.config.stage = "3a"
    first = model.config.text_config.vocab_size
    mine = Layout(buckets=((32, 48), (48, 32)), indicators=(512, 352), line_breaks=True, has_editing=True)
    processor.line_breaks = processor.size_indicators = model.generation_config.line_breaks = False
    prepare_for_stage(model, processor, own_stage(follows=("3a",), layout=mine))
    assert Layout.read(model.config, processor) == dataclasses.replace(mine, first_code=first)
    ids = processor.tokenizer.convert_tokens_to_ids(["<indicator:512>", "<indicator:352>"])
    assert model.config.indicator_token_ids == ids and model.generation_config.line_breaks is True
    with pytest.raises(ValueError, match=f"image codes from id 7 on, but the checkpoint's vocabulary ends at {first}"):
        prepare_for_stage(model, processor, own_stage(follows=None, layout=dataclasses.replace(mine, first_code=7)))


def test_the_papers_layout_keeps_the_sizes_of_a_checkpoint_of_another_stage(model, processor):
    model.config.stage = "my-stage"
    processor.tokenizer.add_tokens(["<indicator:64>"], special_tokens=True)
    processor.buckets, processor.indicator_sizes = [(64, 64)], [64]
    prepare_for_stage(model, processor, dataclasses.replace(stage(4), follows=("my-stage",)))
    assert (processor.buckets, processor.indicator_sizes) == ([(64, 64)], [64])


def test_order_of_own_stages():
    assert check_order("4", own_stage()) is None and check_order("5", own_stage()) is None
    assert check_order("my-stage", own_stage("6", follows=("5", "my-stage"))) is None
    assert (
        check_order("whatever", own_stage(follows=None)) is None and check_order(None, own_stage(follows=None)) is None
    )
    for recorded, chosen, expected in (
        ("2", own_stage(), "4"),
        ("5", stage(4), "3b"),
        ("5", own_stage("6", follows=()), "none"),
    ):
        with pytest.raises(
            ValueError, match=f"stage {expected}, but this one is of stage {recorded}; .*--force"
        ) as raised:
            check_order(recorded, chosen)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"trains": "everything"}, "generation_parts, editing_parts, understanding_parts, all"),
        ({"trains": ()}, "beginnings of parameter names"),
        ({"trains": None}, "beginnings of parameter names"),
        ({"trains": ("edit_head",)}, "with their dots"),
        ({"trains": ("edit_head.", 3)}, "with their dots"),
        ({"trains": ("model.",)}, "with their dots"),
        ({"trains": ("model.vq_model.",)}, "frozen in every stage"),
        ({"name": 5}, "'my-stage'"),
        ({"name": " "}, "'my-stage'"),
        ({"follows": "4"}, r"such as \('4',\)"),
    ],
)
def test_wrong_stages_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        own_stage(**settings)


def test_what_the_model_lacks_is_said_before_training(model, tmp_path):
    arguments = WallarooTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    for trains, wrong in (
        (("edit_hed.",), r"edit_hed\."),
        (("edit_head.", "edit_hed."), r"edit_hed\."),
        (("language_model.layers.99.",), r"language_model\.layers\.99\."),
    ):
        with pytest.raises(ValueError, match=f"Stage 5 trains {wrong}, but .*train some of .*edit_head"):
            WallarooTrainer(model=model, args=arguments, callbacks=[StageCallback(own_stage(trains=trains))])
    del model.edit_head, model.model.edit_adapter, model.model.source_adapter
    model.config.has_editing = model.model.config.has_editing = False
    with pytest.raises(ValueError, match=r"Stage 5 trains edit_head\., but the model has no such parameters"):
        WallarooTrainer(model=model, args=arguments, callbacks=[StageCallback(own_stage())])
    WallarooTrainer(model=model, args=arguments, callbacks=[StageCallback(own_stage(trains="all"))])
    assert model.lm_head.weight.requires_grad and not model.model.vq_model.quantize.embedding.weight.requires_grad


def test_words_and_beginnings_of_names(model):
    chosen = own_stage(trains=["generation_parts", "model.edit_adapter.", "generation_head.", "language_model.norm."])
    assert chosen.trains == ("generation_adapter.", "generation_head.", "edit_adapter.", "language_model.norm.")
    assert chosen.override({"trains": "all"}).trains == PARTS["all"]
    assert stage(4).override({"trains": ["edit_head."]}).trains == ("edit_head.",)
    trained = {name for name, _ in model.named_parameters() if own_stage(trains="all").is_trained(name)}
    everything = {name for name, _ in model.named_parameters()}
    assert everything - trained == {
        name for name in everything if name.startswith(("model.visual.", "model.vq_model."))
    }
    answers = {name for name in everything if own_stage(trains="understanding_parts").is_trained(name)}
    drawing = {name for name in everything if own_stage(trains=["generation_parts", "editing_parts"]).is_trained(name)}
    assert answers & drawing == set()
    assert everything - answers - drawing == {name for name in everything if name.startswith("model.vq_model.")}


def test_records_say_words_where_there_are_some():
    written = json.loads(json.dumps(stage(4).to_dict()))
    assert written["trains"] == "all" and written["layout"]["line_breaks"] is True
    assert {make().to_dict()["trains"] for make in stages.STAGES.values()} == {
        *("understanding_parts", "generation_parts"),
        "all",
    }
    written = json.loads(json.dumps(own_stage().to_dict()))
    assert (written["trains"], written["layout"]) == (["edit_head."], None)


def test_a_new_model_needs_a_layout():
    assert stage(4).named_layout() == PAPER_LAYOUTS["4"]
    sized = own_stage(layout=PAPER_LAYOUTS["2"], buckets=((64, 64),), indicator_sizes=(64,)).named_layout()
    assert sized == dataclasses.replace(PAPER_LAYOUTS["2"], buckets=((64, 64),)), (
        "nothing is announced on the plain grid"
    )
    with pytest.raises(ValueError, match="Stage 5 keeps the layout of the checkpoint"):
        own_stage().named_layout()


@pytest.mark.parametrize("recorded", [None, "0", "1", "2", "3a", "3b", "4", "5", "my-stage"])
def test_checkpoints_of_any_stage_load_and_are_fine_tuned(model, processor, tmp_path, recorded):
    model.config.stage = recorded
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert WallarooForConditionalGeneration.from_pretrained(tmp_path).config.stage == recorded
    chosen = fine_tuning(str(tmp_path), {"editing": 1}, lora=False)
    assert chosen.name == (recorded or "4") and chosen.layout is None
    assert chosen.trains == (stage(recorded).trains if recorded in stages.STAGES else PARTS["all"])
    layout = Layout.read(model.config, processor)
    prepare_for_stage(model, processor, chosen)
    assert Layout.read(model.config, processor) == layout
