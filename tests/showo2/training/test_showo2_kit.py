"""Show-o2 through the trainer: what moves, one mean over all text, resuming to the bit, LoRA, latents encoded ahead."""

import copy
import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import SiglipVisionConfig, SiglipVisionModel
from typer.testing import CliRunner

from golden_showo2 import load_tiny, recorded
from small_showo2 import drawing, edit, new_showo2, picture, question, save_showo2, story
from wallaroo_hf.cli import app
from wallaroo_hf.families.registry import kit_of
from wallaroo_hf.showo2 import ShowO2ForConditionalGeneration, ShowO2Processor
from wallaroo_hf.showo2.flow_losses import semantic_loss
from wallaroo_hf.showo2.training.showo2_kit import KIT
from wallaroo_hf.showo2.training.showo2_stages import STAGES, showo2_stage
from wallaroo_hf.training.arguments import WallarooTrainingArguments
from wallaroo_hf.training.callbacks import StageCallback
from wallaroo_hf.training.data.row_parts import Numbered
from wallaroo_hf.training.lora import add_lora, merge_adapter
from wallaroo_hf.training.run import RunOptions, build_trainer, load_training_data
from wallaroo_hf.training.trainer import WallarooTrainer

NAMES = ("understanding_text", "generation_text", "generation_image")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_showo2(tmp_path_factory.mktemp("showo2") / "model")


@pytest.fixture
def data(tmp_path):
    """Rows on disk: three drawings, two answers."""
    picture().save(tmp_path / "red.png")
    picture((30, 160, 90)).save(tmp_path / "green.png")
    lines = [drawing("a red square"), question(), drawing("a green square"), question("green"), drawing("red")]
    for number, line in enumerate(lines):
        line["images"] = ["green.png" if number in (2, 3) else "red.png"]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def _rows():
    return [drawing("a red square"), question("blue"), drawing("red"), question("a red square above a blue circle")]


def _trainer(rows, folder, stage="2c", model=None, changes=None, **settings):
    own, processor = new_showo2()
    model = own if model is None else model
    chosen = dataclasses.replace(showo2_stage(stage), **{"caption_dropout": 0.0, **(changes or {})})
    KIT.prepare_for_stage(model, processor, chosen, force=True)
    defaults = {
        "output_dir": str(folder),
        "max_steps": 1,
        "per_device_train_batch_size": 4,
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
        train_dataset=Numbered(rows),
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


@pytest.mark.parametrize("stage", [name for name in STAGES if name != "pre-distillation"])
def test_what_a_stage_trains_moves_and_nothing_else(tmp_path, stage):
    rates = {"learning_rates": {"visual.": 1e-2}}  # those of the recipe round to nothing in one step
    trainer = _trainer([*_rows(), story()], tmp_path, stage, changes=rates, per_device_train_batch_size=5)
    codec = copy.deepcopy(trainer.wallaroo.vae.state_dict())
    moved = _moved(trainer)
    chosen = showo2_stage(stage)
    still = {name for name, move in moved.items() if not move.any()}
    assert still == {name for name in moved if not chosen.is_trained(name)}
    assert all(torch.equal(value, codec[name]) for name, value in trainer.wallaroo.vae.state_dict().items())
    config = trainer.wallaroo.config
    assert (config.stage, config.text_weight) == (stage, chosen.text_weight)
    assert ("interleaved" in config.tasks) == (stage == "interleaved")


def test_parts_learn_at_their_own_rates(tmp_path):
    trainer = _trainer(_rows(), tmp_path, "2c", learning_rate=1e-5)
    trainer.create_optimizer_and_scheduler(1)
    rates = {id(p): group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    for name, parameter in trainer.wallaroo.named_parameters():
        if parameter.requires_grad:
            of_vision = "visual." in name and "fusion" not in name
            assert rates[id(parameter)] == (2e-6 if of_vision else 1e-5), name
        else:
            assert id(parameter) not in rates


def test_the_loss_is_the_models(tmp_path):
    """One mean over all text, another over the velocity, weighted as the stage says."""
    trainer = _trainer(_rows(), tmp_path, "1a")
    model = trainer.wallaroo
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(4)])
    prepared = KIT.prepare(model, batch)
    counts = KIT.count(prepared, model.config)
    assert torch.equal(counts, KIT.count(batch, model.config)) and counts[1] == 0 and counts[2] == 8
    prepared.pop("row_names")
    with torch.no_grad():
        output = model.train()(**KIT.arrange(model, prepared, False, False))
        assert float(trainer.compute_loss(model.eval(), batch)) == pytest.approx(float(output.loss), rel=1e-6)
    text, flow = output.losses["understanding_text"], output.losses["generation_image"]
    assert float(output.loss) == pytest.approx(float(0.2 * text + flow), rel=1e-6)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(float(output.loss), rel=1e-5)
    assert KIT.loss_names(model.config) == NAMES


def _mixed_rows():
    """Rows with text and with text and pictures, of different lengths, so that means of means are no means."""
    return [
        *(question("blue"), drawing("red"), story(), question("a red square above a blue circle above a red square")),
        *(drawing("a red square", height=32, width=64), question("red"), story(), drawing("blue")),
    ]


@pytest.mark.parametrize("size", [1, 2])
def test_accumulated_steps_are_one_large_batch(tmp_path, size):
    changes = {"interleaved": "story", "clean_rate": 0.0, "text_weight": 0.7}
    whole = _moved(_trainer(_mixed_rows(), tmp_path, changes=changes, per_device_train_batch_size=8))
    trainer = _trainer(
        _mixed_rows(),
        tmp_path,
        changes=changes,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=8 // size,
    )
    split = _moved(trainer)
    for name, move in whole.items():
        torch.testing.assert_close(split[name], move, rtol=1e-3, atol=3e-7, msg=name)
    assert {f"loss_{name}" for name in NAMES} <= trainer.state.log_history[0].keys()


def test_evaluation_is_over_all_labels(tmp_path):
    rows = [{**row, "ordinal": number} for number, row in enumerate(_mixed_rows())]
    results = []
    for size in (8, 3):
        trainer = _trainer(
            rows, tmp_path, changes={"interleaved": "story", "text_weight": 0.7}, per_device_eval_batch_size=size
        )
        results.append(trainer.evaluate(rows))
        names = [f"eval_loss_{name}" for name in NAMES]
        assert all(name in results[-1] for name in names)
    for name in ("eval_loss", *names):
        assert results[0][name] == pytest.approx(results[1][name], rel=1e-5)


@pytest.mark.parametrize("rows", [[question()], [drawing()]])
def test_rows_without_images_to_draw_or_without_labels(tmp_path, rows):
    trainer = _trainer(rows, tmp_path, per_device_train_batch_size=1)
    moved = _moved(trainer)
    assert all(torch.isfinite(move).all() for move in moved.values()) and trainer.non_finite_steps == 0
    assert any(move.any() for move in moved.values())
    assert any(move.any() for name, move in moved.items() if name.startswith("flow_head")) == (rows == [drawing()])


def test_repeated_rows_do_not_count():
    model, processor = new_showo2()
    collator = KIT.collator(processor, showo2_stage("2c"))
    rows = [dict(row, ordinal=number) for number, row in enumerate([story(), drawing(), question()])]
    kept = KIT.keep_rows(KIT.prepare(model, collator(rows)), 1)
    alone = KIT.prepare(model, collator(rows[:1]))
    assert torch.equal(KIT.count(kept, model.config), KIT.count(alone, model.config))
    assert [target is None for target in kept["velocity_targets"]] == [not one for one in kept["image_learned"]]


def _options(folder, output, **more):
    return RunOptions(str(folder), output, device="cpu", logging_steps=1, save_steps=2, batch_size=2, **more)


def test_a_run_goes_on_to_the_bit(folder, data, tmp_path):
    def train(output, steps, resume=None):
        sources, _ = load_training_data(str(data))
        stage = dataclasses.replace(
            showo2_stage("2c"), max_steps=4, global_batch_size=4, task_ratio={"generation": 3, "understanding": 2}
        )
        trainer = build_trainer(_options(folder, output), stage, sources)
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


def test_the_command(folder, data, tmp_path):
    output = tmp_path / "run"
    common = ("train", "-m", folder, "--data", data, "--device", "cpu", "--set", "global_batch_size=2")
    result = CliRunner().invoke(app, [str(one) for one in (*common, "-o", output, "--steps", 2, "--save-every", 1)])
    assert result.exit_code == 0, result.output
    config = ShowO2ForConditionalGeneration.from_pretrained(output / "final").config
    assert config.stage == "2c" and config.text_weight == 1.0
    dry = CliRunner().invoke(app, [str(one) for one in (*common, "--stage", "1a", "--dry-run")])
    assert dry.exit_code == 0 and "5 rows: 2 understanding, 3 generation; 0 broken" in " ".join(dry.output.split())
    wrong = CliRunner().invoke(app, [str(one) for one in (*common, "--stage", "3a", "--dry-run")])
    assert wrong.exit_code == 1 and "must be one of pre-distillation, 1a, 1b" in " ".join(wrong.output.split())


def test_latents_encoded_by_the_command(folder, data, tmp_path):
    encoded = tmp_path / "encoded"
    result = CliRunner().invoke(app, ["encode", str(data), "-m", str(folder), "-o", str(encoded), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    sources, folders = load_training_data(str(encoded))
    stage = dataclasses.replace(
        showo2_stage("2c"), max_steps=2, global_batch_size=4, task_ratio={"generation": 3, "understanding": 2}
    )
    losses = []
    for found, ahead in ((sources, folders), (load_training_data(str(data))[0], [])):
        trainer = build_trainer(_options(folder, tmp_path / f"run{len(losses)}"), stage, found, ahead)
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)  # kept in float16
    other = save_showo2(tmp_path / "other")
    model = ShowO2ForConditionalGeneration.from_pretrained(other)
    model.vae.scale.mul_(2)
    model.save_pretrained(other)
    with pytest.raises(ValueError, match="was encoded by another image tokenizer"):
        build_trainer(_options(other, tmp_path / "run"), stage, sources, folders)


def test_the_codec_alone(folder):
    codec = KIT.load_codec(str(folder))
    model = ShowO2ForConditionalGeneration.from_pretrained(folder)
    assert kit_of(codec, "encode") is KIT
    processor = ShowO2Processor.from_pretrained(folder)
    alone, within = (KIT.encoder(one, processor) for one in (codec, KIT.codec(model)))
    assert alone.fingerprint == within.fingerprint
    processor.image_processor.fit = "crop"
    assert alone.fingerprint != KIT.encoder(codec, ShowO2Processor.from_pretrained(folder)).fingerprint


def test_lora_from_training_to_a_merged_checkpoint(folder, data, tmp_path):
    sources, _ = load_training_data(str(data))
    stage = dataclasses.replace(
        KIT.fine_tuning(folder, {"generation": 3, "understanding": 2}, lora=True), max_steps=4, global_batch_size=2
    )
    assert stage.learning_rate == 1e-4
    trainer = build_trainer(_options(folder, tmp_path / "run", lora=True, lora_rank=2), stage, sources)
    before = _weights(trainer.model)
    trainable = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name or ".fusion." in name for name in trainable)
    assert any("flow_head.layers.0.self_attn.q_proj.lora_A" in name for name in trainable)
    assert not any("modulation" in name or "semantic_layers" in name for name in trainable)
    trainer.train()
    after = _weights(trainer.model)
    still = {name for name in after if torch.equal(before[name], after[name])}
    assert still == after.keys() - trainable
    merged = merge_adapter(folder, tmp_path / "run" / "checkpoint-4", tmp_path / "merged")
    model = ShowO2ForConditionalGeneration.from_pretrained(merged).eval()
    batch = KIT.prepare(model, trainer.data_collator([drawing(ordinal=1), question(ordinal=2)]))
    batch.pop("row_names")
    with torch.no_grad():
        adapted = trainer.wallaroo.eval()(**KIT.arrange(model, batch, False, False)).loss
        own = model(**KIT.arrange(model, batch, False, False)).loss
        base = ShowO2ForConditionalGeneration.from_pretrained(folder).eval()(**KIT.arrange(model, batch, False, False))
    assert float(own) == pytest.approx(float(adapted), rel=1e-5) and float(base.loss) != float(own)


def test_lora_by_hand():
    model, _ = new_showo2()
    adapted = add_lora(model, rank=2, train_image_parts=False)
    assert all("lora_" in name for name, parameter in adapted.named_parameters() if parameter.requires_grad)
    with pytest.raises(ValueError, match="must name linear layers"):
        add_lora(new_showo2()[0], target_modules=["modulation"])


# --------------------------------------------------------------------------------------------------- pre-distillation


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("siglip")
    config = SiglipVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    torch.manual_seed(3)
    SiglipVisionModel(config).save_pretrained(folder)
    return str(folder)


def test_semantic_layers_learn_from_a_teacher(tmp_path, teacher):
    rows = [question() for _ in range(8)]
    changes = {"teacher": teacher}
    trainer = _trainer(
        rows, tmp_path, "pre-distillation", changes=changes, max_steps=30, learning_rate=3e-3, optim="adamw_torch"
    )
    moved = _moved(trainer)
    chosen = showo2_stage("pre-distillation")
    assert {name for name, move in moved.items() if move.any()} == {name for name in moved if chosen.is_trained(name)}
    losses = [entry["loss_semantic"] for entry in trainer.state.log_history if "loss_semantic" in entry]
    assert losses[-1] < losses[0] / 3
    trainer.save_model(str(tmp_path / "saved"))
    assert not any("teacher" in name for name in load_file(tmp_path / "saved" / "model.safetensors"))


def test_a_teacher_sees_what_the_student_sees(teacher):
    model, processor = new_showo2()
    stage = dataclasses.replace(showo2_stage("pre-distillation"), teacher=teacher, noise_rate=0.3)
    KIT.prepare_for_stage(model, processor, stage)
    collator = KIT.collator(processor, stage)
    batch = collator([dict(question(), ordinal=number) for number in range(200)])
    noisy = sum(time < 1 for time in batch["timesteps"])
    assert 40 <= noisy <= 80
    prepared = KIT.prepare(model, batch)
    assert prepared["semantic_targets"][0].shape == (4, 16)
    siglip = SiglipVisionModel.from_pretrained(teacher)
    own = torch.nn.functional.interpolate(batch["image_pixels"][0][None], (28, 28), mode="bicubic", antialias=True)
    with torch.no_grad():
        seen = siglip(own.clamp(-1, 1), output_hidden_states=True).hidden_states[1][0]  # as deep as the student
    torch.testing.assert_close(prepared["semantic_targets"][0], seen)
    wide = collator([dict(question(), images=[picture(size=(64, 32))], ordinal=1)])
    assert KIT.prepare(model, wide)["semantic_targets"][0].shape == (8, 16)
    with pytest.raises(ValueError, match="has 2 layers of width 16"):
        KIT.prepare_for_stage(new_showo2(semantic_width=24)[0], processor, stage)


def test_the_semantic_loss():
    one, other = torch.randn(5, 8), torch.randn(5, 8)
    cosine = torch.nn.functional.cosine_similarity(one, one + 0.3 * other, dim=-1)
    assert float(semantic_loss([one, other], [one + 0.3 * other, None])) == pytest.approx(float(-cosine.log().mean()))
    away = (-one).requires_grad_()
    loss = semantic_loss([away], [one + 0.1 * other])
    loss.backward()
    assert torch.isfinite(loss) and away.grad.abs().sum() > 0
    assert float(semantic_loss([one], [None])) == 0
    with pytest.raises(ValueError, match="Image 0 has features of"):
        semantic_loss([one], [one[:3]])


def test_tasks_that_were_learned_are_recorded(tmp_path):
    model, processor = new_showo2()
    stage = dataclasses.replace(
        showo2_stage("2c"), task_ratio={"editing": 1, "generation": 1}, image_sizes=((48, 48),)
    )
    KIT.prepare_for_stage(model, processor, stage, force=True)
    assert model.config.tasks == ["understanding", "text-to-image", "image-editing"]
    assert model.config.drawing_sizes == [[48, 48]] and processor.abilities.sizes == ((48, 48),)
    trainer = _trainer([edit()], tmp_path, changes={"task_ratio": {"editing": 1}}, per_device_train_batch_size=1)
    assert any(move.any() for move in _moved(trainer).values())


# -------------------------------------------------------------------------------------------- the authors' recordings


def test_recorded_losses_through_the_kit(tiny_a_folder):
    """What the authors' code learns of two pictures and a caption, split into two halves of a step."""
    batch = recorded("tiny_a/train_t2i_caption")
    model = load_tiny(tiny_a_folder)
    inputs = {
        "input_ids": batch["text_tokens"],
        "labels": batch["text_labels"],
        "image_latents": list(batch["noised_latents"]),
        "velocity_targets": [*batch["velocity_target"][:2], None],
        "image_learned": [True, True, False],
        "image_rows": [0, 1, 2],
        "timesteps": batch["t"].tolist(),
    }
    for weight, name in ((0.2, "loss_total_coeff_0p2"), (1.0, "loss_total_coeff_1")):
        model.config.text_weight = weight
        counts = KIT.count(inputs, model.config)
        shares = KIT.denominators(counts, model.config)
        assert counts.tolist() == [14, 0, 50] and shares.tolist() == [14, 14, 50]
        parts = [{"rows": slice(0, 1)}, {"rows": slice(1, 3)}]
        total = 0.0
        for part in parts:
            rows = part["rows"]
            half = {key: value[rows] for key, value in inputs.items()}
            half["image_rows"] = [row - rows.start for row in half["image_rows"]]
            output = model(**KIT.arrange(model, half, False, False))
            own = dict(zip(NAMES, KIT.count(half, model.config) / shares, strict=True))
            losses = {key: loss * own[key] for key, loss in output.losses.items()}
            total += float(KIT.total_loss(losses, None, model.config).detach())
        assert total == pytest.approx(float(batch[name]), rel=2e-6)
