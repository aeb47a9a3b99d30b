"""HieraQuery through the trainer: what moves, means over the whole step, resuming to the bit, LoRA, encoding ahead."""

import copy
import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from small_hieraquery import new_hieraquery, picture, save_hieraquery
from wallaroo_hf.cli import app
from wallaroo_hf.families.registry import kit_of
from wallaroo_hf.hieraquery import HieraQueryForConditionalGeneration, HieraQueryProcessor
from wallaroo_hf.hieraquery.training.hieraquery_kit import KIT
from wallaroo_hf.hieraquery.training.hieraquery_stages import STAGES, hieraquery_stage
from wallaroo_hf.training.arguments import WallarooTrainingArguments
from wallaroo_hf.training.callbacks import StageCallback
from wallaroo_hf.training.data.row_parts import Numbered
from wallaroo_hf.training.lora import merge_adapter
from wallaroo_hf.training.run import RunOptions, build_trainer, finish, load_training_data
from wallaroo_hf.training.trainer import WallarooTrainer

NAMES = ("flow_0", "flow_1", "alignment_0", "alignment_1")


def drawing(words="a red square", colour=(200, 40, 40), **more):
    answer = {"role": "assistant", "content": [{"type": "image"}]}
    return {"messages": [{"role": "user", "content": words}, answer], "images": [picture(colour)], **more}


def edit(words="make it green", **more):
    asked = [{"type": "image"}, {"type": "text", "text": words}]
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": [{"type": "image"}]}]
    return {"messages": messages, "images": [picture(), picture((30, 160, 90))], **more}


def rows():
    """Of several sizes and lengths, so that means of means are no means."""
    return [
        *(drawing(), edit(), drawing("a red square above a blue circle", height=16, width=32), edit("make it blue")),
        *(drawing("blue", (10, 60, 220)), drawing("a blue circle", height=16, width=32), edit(), drawing("red")),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_hieraquery(tmp_path_factory.mktemp("hieraquery") / "model")


@pytest.fixture
def data(tmp_path):
    """Rows on disk: three drawings, two edits."""
    picture().save(tmp_path / "red.png")
    picture((30, 160, 90)).save(tmp_path / "green.png")
    lines = [drawing(), edit(), drawing("a green square"), edit("make it green"), drawing("red")]
    for line in lines:
        line["images"] = ["red.png", "green.png"][-len(line["images"]) :]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def _trainer(given, folder, stage="editing", changes=None, **settings):
    model, processor = new_hieraquery()
    chosen = dataclasses.replace(hieraquery_stage(stage), **(changes or {}))
    KIT.prepare_for_stage(model, processor, chosen, force=True)
    defaults = {
        "output_dir": str(folder),
        "max_steps": 1,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "train_sampling_strategy": "sequential",
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return WallarooTrainer(
        model=model,
        args=WallarooTrainingArguments(**{**defaults, **settings}),
        train_dataset=Numbered(given),
        data_collator=KIT.collator(processor, chosen),
        processing_class=processor,
        callbacks=[StageCallback(chosen, force=True)],
    )


def _weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def _moved(trainer):
    before = _weights(trainer.wallaroo)
    trainer.train()
    return {name: after - before[name] for name, after in _weights(trainer.wallaroo).items()}


@pytest.mark.parametrize("stage", STAGES)
def test_everything_but_language_model_and_codec_moves(tmp_path, stage):
    """With weight decay, in training mode; and each trained parameter has a gradient."""
    trainer = _trainer(rows(), tmp_path, stage, optim="adamw_torch", weight_decay=0.5, max_steps=2)
    question = trainer.processing_class(text="what colour is it?", return_tensors="pt")
    with torch.no_grad():
        answered = trainer.wallaroo.mllm(**question).logits
    codec = copy.deepcopy(trainer.wallaroo.codec.state_dict())
    moved = _moved(trainer)
    still = {name for name, move in moved.items() if not move.any()}
    assert still == {name for name in moved if name.startswith(("mllm.", "codec."))}
    assert all(torch.equal(value, codec[name]) for name, value in trainer.wallaroo.codec.state_dict().items())
    with torch.no_grad():
        assert torch.equal(trainer.wallaroo.mllm(**question).logits, answered)
    assert trainer.wallaroo.config.stage == stage


def test_the_papers_schedule(tmp_path):
    trainer = _trainer(rows(), tmp_path, "t2i")
    for name in STAGES:
        arguments = WallarooTrainingArguments.for_stage(
            dataclasses.replace(hieraquery_stage(name), max_steps=100, warmup_steps=10), str(tmp_path), 1, use_cpu=True
        )
        trainer.args, trainer.optimizer, trainer.lr_scheduler = arguments, None, None
        trainer.create_optimizer_and_scheduler(100)
        rates = []
        for _ in range(100):
            rates.append(trainer.optimizer.param_groups[0]["lr"])
            trainer.optimizer.step()
            trainer.lr_scheduler.step()
        assert rates[0] == pytest.approx(1e-6) and rates[9] == pytest.approx(5e-5)
        assert max(rates) == rates[9] and rates[-1] == pytest.approx(1e-6, rel=0.1)


def test_parts_learn_at_their_own_rates(tmp_path):
    trainer = _trainer(rows(), tmp_path, changes={"learning_rates": {"queries.": 3e-3, "dit.proj_out.": 2e-3}})
    trainer.create_optimizer_and_scheduler(1)
    rates = {id(p): group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    for name, parameter in trainer.wallaroo.named_parameters():
        own = 3e-3 if name.startswith("queries.") else 2e-3 if name.startswith("dit.proj_out.") else 1e-2
        assert rates.get(id(parameter)) == (own if parameter.requires_grad else None), name


def test_the_loss_is_the_models(tmp_path):
    trainer = _trainer(rows(), tmp_path)
    model = trainer.wallaroo
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(8)])
    prepared = KIT.prepare(model, batch)
    assert KIT.count(prepared, model.config).tolist() == KIT.count(batch, model.config).tolist() == [8.0] * 4
    prepared.pop("row_names")
    with torch.no_grad():
        output = model.train()(**KIT.arrange(model, prepared, False, False))
    trainer.train()
    logged = trainer.state.log_history[0]
    assert logged["loss"] == pytest.approx(float(output.loss), rel=1e-5)
    assert KIT.loss_names(model.config) == NAMES and {f"loss_{name}" for name in NAMES} <= logged.keys()
    expected = sum(output.losses[f"flow_{k}"] + 0.5 * output.losses[f"alignment_{k}"] for k in (0, 1)) / 2
    assert float(output.loss) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("size", [1, 2])
def test_accumulated_steps_are_one_large_batch(tmp_path, size):
    changes = {"noise_draws": 2, "reconstruction_rate": 0.5}
    whole = _moved(_trainer(rows(), tmp_path, changes=changes))
    trainer = _trainer(
        rows(),
        tmp_path,
        changes=changes,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=8 // size,
    )
    split = _moved(trainer)
    for name, move in whole.items():
        torch.testing.assert_close(split[name], move, rtol=2e-3, atol=1e-6, msg=name)


def test_evaluation_is_over_all_rows(tmp_path):
    given = [{**row, "ordinal": number} for number, row in enumerate(rows())]
    results = [_trainer(given, tmp_path, per_device_eval_batch_size=size).evaluate(given) for size in (8, 3)]
    for name in ("eval_loss", *(f"eval_loss_{name}" for name in NAMES)):
        assert results[0][name] == pytest.approx(results[1][name], rel=1e-4)


def test_repeated_rows_do_not_count():
    model, processor = new_hieraquery()
    stage = hieraquery_stage("editing")
    KIT.prepare_for_stage(model, processor, stage)
    given = [{**row, "ordinal": number} for number, row in enumerate(rows()[:3])]
    losses = []
    for batch, kept in ((given, 1), (given[:1], 1)):
        prepared = KIT.keep_rows(KIT.prepare(model, KIT.collator(processor, stage)(batch)), kept)
        assert KIT.count(prepared, model.config).tolist() == [1.0] * 4
        prepared.pop("row_names")
        losses.append(float(model(**KIT.arrange(model, prepared, False, False)).loss.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_batch_without_a_row_that_draws_touches_all_parts():
    model, processor = new_hieraquery()
    stage = hieraquery_stage("editing")
    KIT.prepare_for_stage(model, processor, stage)
    collator = KIT.collator(processor, stage, on_error="skip")
    words = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "blue"}]
    batch = collator([{"messages": words, "images": [], "ordinal": 1}])
    assert batch["skipped_rows"] == 1
    prepared = KIT.prepare(model, batch)
    prepared = {name: value for name, value in prepared.items() if name not in ("row_names", "skipped_rows")}
    model.train()(**KIT.arrange(model, prepared, True, False)).loss.backward()
    lacking = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert not lacking and KIT.count(batch, model.config).tolist() == [0.0] * 4


def _options(folder, output, **more):
    return RunOptions(str(folder), output, device="cpu", logging_steps=1, save_steps=2, batch_size=2, **more)


def _stage(**changes):
    ratio = {"generation": 3, "editing": 2}
    return dataclasses.replace(
        hieraquery_stage("editing"),
        **{"max_steps": 4, "global_batch_size": 4, "task_ratio": ratio, "follows": None, "warmup_steps": 9, **changes},
    )


def test_a_run_goes_on_to_the_bit(folder, data, tmp_path):
    def train(output, steps, resume=None):
        trainer = build_trainer(
            _options(folder, output), _stage(reconstruction_rate=0.5), load_training_data(str(data))[0]
        )
        trainer.args.max_steps = steps
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    whole = train(tmp_path / "whole", 4)
    train(tmp_path / "parts", 2)
    again = train(tmp_path / "parts", 4, str(tmp_path / "parts" / "checkpoint-2"))
    first, second = (
        load_file(run / "checkpoint-4" / "model.safetensors") for run in (tmp_path / "whole", tmp_path / "parts")
    )
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    curve = [[entry["loss"] for entry in one.state.log_history if "loss" in entry] for one in (whole, again)]
    assert curve[0] == curve[1]
    final = HieraQueryForConditionalGeneration.from_pretrained(finish(again, tmp_path / "parts"))
    for name, tensor in again.wallaroo.state_dict().items():
        assert torch.equal(final.state_dict()[name], tensor), name


def test_the_command(folder, data, tmp_path):
    output = tmp_path / "run"
    common = ("train", "-m", folder, "--data", data, "--device", "cpu", "--set", "global_batch_size=2")
    result = CliRunner().invoke(app, [str(one) for one in (*common, "-o", output, "--steps", 2, "--save-every", 1)])
    assert result.exit_code == 0, result.output
    config = HieraQueryForConditionalGeneration.from_pretrained(output / "final").config
    assert config.stage == "t2i" and "image-editing" in config.tasks
    staged = (*common, "--stage", "t2i", "--set", "task_ratio={generation: 1, editing: 0}", "--dry-run")
    dry = CliRunner().invoke(app, [str(one) for one in staged])
    assert dry.exit_code == 0 and "0 broken" in " ".join(dry.output.split()), dry.output
    wrong = CliRunner().invoke(app, [str(one) for one in (*common, "--stage", "3a", "--dry-run")])
    assert wrong.exit_code == 1 and "must be one of t2i, reconstruction, editing" in " ".join(wrong.output.split())


def test_pictures_encoded_by_the_command(folder, data, tmp_path):
    encoded = tmp_path / "encoded"
    result = CliRunner().invoke(app, ["encode", str(data), "-m", str(folder), "-o", str(encoded), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    sources, folders = load_training_data(str(encoded))
    losses = []
    for found, ahead in ((sources, folders), (load_training_data(str(data))[0], [])):
        stage = _stage(max_steps=2, reconstruction_rate=0.5)
        trainer = build_trainer(_options(folder, tmp_path / f"run{len(losses)}"), stage, found, ahead)
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    other = save_hieraquery(tmp_path / "other")
    model = HieraQueryForConditionalGeneration.from_pretrained(other)
    with torch.no_grad():
        next(model.mllm.model.visual.parameters()).mul_(2)
    model.save_pretrained(other)
    with pytest.raises(ValueError, match="was encoded by another image tokenizer"):
        build_trainer(_options(other, tmp_path / "run"), _stage(), sources, folders)


def test_what_looks_at_pictures_alone(folder):
    alone = KIT.load_codec(str(folder))
    model = HieraQueryForConditionalGeneration.from_pretrained(folder)
    assert kit_of(alone, "encode") is KIT
    processor = HieraQueryProcessor.from_pretrained(folder)
    assert KIT.encoder(alone, processor).fingerprint == KIT.encoder(KIT.codec(model), processor).fingerprint


def test_lora_from_training_to_a_merged_checkpoint(folder, data, tmp_path):
    stage = dataclasses.replace(
        KIT.fine_tuning(folder, {"generation": 3, "editing": 2}, lora=True), max_steps=4, global_batch_size=2
    )
    assert stage.learning_rate == 1e-4
    trainer = build_trainer(
        _options(folder, tmp_path / "run", lora=True, lora_rank=2), stage, load_training_data(str(data))[0]
    )
    before = _weights(trainer.model)
    trainable = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    whole = ("lora_", ".queries.", ".connector.", ".alignment.")
    assert all(any(part in name for part in whole) for name in trainable)
    assert any("transformer_blocks.0.attn1.to_q.lora_A" in name for name in trainable)
    trainer.train()
    after = _weights(trainer.model)
    assert {name for name in after if torch.equal(before[name], after[name])} == after.keys() - trainable
    merged = merge_adapter(folder, tmp_path / "run" / "checkpoint-4", tmp_path / "merged")
    model = HieraQueryForConditionalGeneration.from_pretrained(merged).eval()
    batch = KIT.prepare(model, trainer.data_collator([drawing(ordinal=1), edit(ordinal=2)]))
    batch.pop("row_names")
    with torch.no_grad():
        adapted = trainer.wallaroo.eval()(**KIT.arrange(model, batch, False, False)).loss
        own = model(**KIT.arrange(model, batch, False, False)).loss
        base = HieraQueryForConditionalGeneration.from_pretrained(folder).eval()
        untrained = base(**KIT.arrange(model, batch, False, False)).loss
    assert float(own) == pytest.approx(float(adapted), rel=1e-5) and float(untrained) != float(own)


def test_stages_refuse_what_cannot_be(tmp_path):
    model, processor = new_hieraquery()
    KIT.prepare_for_stage(model, processor, hieraquery_stage("t2i"))
    with pytest.raises(ValueError, match="is not prepared for stage editing"):
        KIT.check_model(model, hieraquery_stage("editing"))
    model.config.stage = "t2i"
    with pytest.raises(ValueError, match="starts from a checkpoint of stage reconstruction"):
        KIT.prepare_for_stage(model, processor, hieraquery_stage("editing"))
    with pytest.raises(ValueError, match="does not fit scale 0"):
        stage = dataclasses.replace(hieraquery_stage("reconstruction"), image_sizes=((36, 36),))
        KIT.prepare_for_stage(model, processor, stage)
    with pytest.raises(ValueError, match="but the language model is frozen in every stage"):
        hieraquery_stage("t2i").override({"trains": "mllm."})
    with pytest.raises(ValueError, match="the losses are flow and alignment"):
        KIT.total_loss({}, {"editing": 2.0}, model.config)
