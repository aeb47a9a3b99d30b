"""`wallaroo train`: fine-tuning, resuming, LoRA, looking at rows; what a user can do wrong."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from helpers import picture
from wallaroo_hf import WallarooForConditionalGeneration, WallarooProcessor
from wallaroo_hf.cli import app
from wallaroo_hf.training import stages

OLD_SETTINGS = Path(__file__).parents[1] / "training" / "assets" / "old_settings.json"


@pytest.fixture
def data(tmp_path):
    """Six rows as a user has them: a jsonl beside its pictures."""
    folder = tmp_path / "data"
    folder.mkdir()
    lines = []
    for index in range(4):
        picture(index, 32, 32).save(folder / f"{index}.png")
        asked = [{"type": "text", "text": f"thing {index}"}]
        images = [f"{index}.png"]
        if index > 1:
            asked.insert(0, {"type": "image"})
            images.insert(0, "0.png")
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": [{"type": "image"}]}]
        lines.append({"messages": messages, "images": images, "height": 32, "width": 32})
    for index in range(2):
        messages = [{"role": "user", "content": f"Say {index}"}, {"role": "assistant", "content": f"{index}"}]
        lines.append({"messages": messages})
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return folder / "rows.jsonl"


def _train(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def _fine_tune(compact, data, output, *more):
    common = ("-m", compact.folder, "--data", data, "-o", output, "--device", "cpu", "--set", "global_batch_size=6")
    return _train(*common, "--batch-size", 3, "--log-every", 1, *more)


def test_fine_tuning_writes_a_checkpoint_and_its_losses(compact, data, tmp_path):
    output = tmp_path / "run"
    result = _fine_tune(compact, data, output, "--steps", 2, "--save-every", 1)
    assert result.exit_code == 0, result.output
    assert (output / "losses.png").exists() and (output / "checkpoint-2").is_dir()
    model = WallarooForConditionalGeneration.from_pretrained(output / "final")
    assert model.config.stage == "4"
    assert WallarooProcessor.from_pretrained(output / "final").buckets == compact.processor.buckets
    history = json.loads((output / "checkpoint-2" / "trainer_state.json").read_text())["log_history"]
    assert {"loss_generation_image", "loss_editing_image", "loss_understanding_text"} <= set(history[0])
    again = _fine_tune(compact, data, output, "--steps", 2)
    assert again.exit_code == 1 and "holds a finished run" in again.output


def test_a_stopped_run_goes_on(compact, data, tmp_path):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    assert _fine_tune(compact, data, whole, "--steps", 3, "--save-every", 1).exit_code == 0
    assert _fine_tune(compact, data, parted, "--steps", 3, "--save-every", 1).exit_code == 0
    for path in (parted / "final", parted / "checkpoint-3"):
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    result = _fine_tune(compact, data, parted, "--steps", 3, "--save-every", 1)
    assert result.exit_code == 0 and "Going on from" in result.output
    assert (whole / "final" / "model.safetensors").read_bytes() == (
        parted / "final" / "model.safetensors"
    ).read_bytes()


def test_starting_over_sets_the_old_checkpoints_aside(compact, data, tmp_path):
    """Those of the run that was given up have higher numbers, and must not be gone on from later."""
    output = tmp_path / "run"
    assert _fine_tune(compact, data, output, "--steps", 2, "--save-every", 1).exit_code == 0
    (output / "final").rename(tmp_path / "kept")
    old = (output / "checkpoint-2" / "model.safetensors").read_bytes()
    result = _fine_tune(compact, data, output, "--steps", 1, "--save-every", 1, "--seed", 1, "--no-resume")
    assert result.exit_code == 0 and "set-aside-1" in result.output.replace("\n", ""), result.output
    assert sorted(path.name for path in output.glob("checkpoint-*")) == ["checkpoint-1"]
    assert (output / "set-aside-1" / "checkpoint-2" / "model.safetensors").read_bytes() == old
    (output / "final").rename(tmp_path / "other")
    result = _fine_tune(compact, data, output, "--steps", 1, "--seed", 1)
    assert result.exit_code == 0 and "Going on from" in result.output and "checkpoint-1" in result.output


def test_a_run_is_not_resumed_as_another_one(compact, data, tmp_path):
    output = tmp_path / "run"
    assert _fine_tune(compact, data, output, "--steps", 1, "--save-every", 1).exit_code == 0
    shutil.rmtree(output / "final")
    other = shutil.copy(data, data.with_name("other.jsonl"))
    for more, words in (
        (("--set", "learning_rate=3e-4"), "was begun with `learning_rate` 1e-05, not 0.0003; resume it with the same"),
        (("--seed", 5), "`seed` 0, not 5"),
        (("--lora",), "`lora` False, not True"),
        (("--data", other), "other.jsonl'; resume it"),
        (("--set", "task_ratio={editing: 1}"), "`task_ratio` {'"),
    ):
        result = _fine_tune(compact, data, output, "--steps", 2, *more)
        assert result.exit_code == 1 and words in " ".join(result.output.split()), result.output
    result = _fine_tune(compact, data, output, "--steps", 2, "--log-every", 2, "--workers", 1, "--skip-bad-rows")
    assert result.exit_code == 0 and "Going on from" in result.output, result.output


def test_a_run_of_old_code_goes_on(compact, data, tmp_path):
    """With the settings.json that it wrote, in which `trains` is one word."""
    output = tmp_path / "run"
    assert _fine_tune(compact, data, output, "--steps", 1, "--save-every", 1).exit_code == 0
    shutil.rmtree(output / "final")
    old = json.loads(OLD_SETTINGS.read_text(encoding="utf-8"))["fine_tuning"]
    old |= {"model": str(compact.folder.resolve()), "data": str(data.resolve())}
    (output / "settings.json").write_text(json.dumps(old), encoding="utf-8")
    result = _fine_tune(compact, data, output, "--steps", 2, "--set", "trains=editing_parts")
    assert result.exit_code == 1 and "`trains` 'all', not 'editing_parts'" in " ".join(result.output.split())
    result = _fine_tune(compact, data, output, "--steps", 2)
    assert result.exit_code == 0 and "Going on from" in result.output, result.output


def test_a_new_stage_is_a_function_and_its_name(compact, data, tmp_path, monkeypatch):
    """What is added to training/stages.py is all that it needs."""
    mine = dataclasses.replace(stages.stage_4(), name="5", follows=("4",), trains=("edit_head.",), layout=None)
    monkeypatch.setitem(stages.STAGES, "5", lambda: mine)
    output = tmp_path / "run"
    result = _fine_tune(compact, data, output, "--stage", "5", "--steps", 1)
    assert result.exit_code == 0, result.output
    model = WallarooForConditionalGeneration.from_pretrained(output / "final")
    assert model.config.stage == "5"
    assert WallarooProcessor.from_pretrained(output / "final").to_dict() == compact.processor.to_dict()
    result = _train("-m", output / "final", "--data", data, "--dry-run")
    assert result.exit_code == 0, result.output
    result = _train("-m", output / "final", "--data", data, "--dry-run", "--stage", "4")
    assert result.exit_code == 1
    assert "Stage 4 starts from a checkpoint of stage 3b, but this one is of stage 5;" in " ".join(
        result.output.split()
    )


def test_a_new_size_is_trained_by_naming_it(compact, data, tmp_path):
    output = tmp_path / "run"
    more = ("--set", "buckets=[[48, 144]]", "--set", "indicator_sizes=[352, 512]")
    result = _fine_tune(compact, data, output, "--steps", 1, *more)
    assert result.exit_code == 0, result.output
    processor = WallarooProcessor.from_pretrained(output / "final")
    assert (processor.buckets, processor.indicator_sizes) == ([(48, 144)], [352, 512])


def test_a_damaged_record_of_settings_is_said(compact, data, tmp_path):
    output = tmp_path / "run"
    assert _fine_tune(compact, data, output, "--steps", 1, "--save-every", 1).exit_code == 0
    shutil.rmtree(output / "final")
    for damaged in ('{"seed": ', "3"):
        (output / "settings.json").write_text(damaged, encoding="utf-8")
        result = _fine_tune(compact, data, output, "--steps", 2)
        assert result.exit_code == 1 and "settings.json' is damaged" in " ".join(result.output.split()), result.output
    (output / "settings.json").unlink()
    assert _fine_tune(compact, data, output, "--steps", 2).exit_code == 0


def test_a_run_that_is_begun_anew_may_be_another_one(compact, data, tmp_path):
    output = tmp_path / "run"
    assert _fine_tune(compact, data, output, "--steps", 1, "--save-every", 1).exit_code == 0
    shutil.rmtree(output / "final")
    result = _fine_tune(compact, data, output, "--steps", 1, "--seed", 5, "--no-resume")
    assert result.exit_code == 0, result.output
    assert json.loads((output / "settings.json").read_text(encoding="utf-8"))["seed"] == 5


def test_lora(compact, data, tmp_path):
    output = tmp_path / "run"
    result = _fine_tune(compact, data, output, "--steps", 1, "--lora", "--lora-rank", 2)
    assert result.exit_code == 0, result.output
    assert (output / "final" / "adapter_model.safetensors").exists()
    assert "wallaroo merge" in result.output


def test_dry_run_reports_rows_and_trains_nothing(compact, data, tmp_path):
    result = _train("-m", compact.folder, "--data", data, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "generation" in result.output and "300 steps" in result.output
    (data.parent / "1.png").unlink()
    result = _train("-m", compact.folder, "--data", data, "--dry-run", "--set", "max_length=400")
    assert result.exit_code == 1
    assert "1 of 6 rows cannot be trained on" in result.output
    result = _fine_tune(compact, data, tmp_path / "run", "--steps", 1)
    assert result.exit_code == 1 and "1.png" in result.output
    result = _fine_tune(compact, data, tmp_path / "run", "--steps", 1, "--skip-bad-rows")
    assert result.exit_code == 0, result.output


def test_dry_run_looks_at_rows_as_the_stage_would(model, processor, data, tmp_path):
    """A checkpoint of stage 3b knows no edits; stage 4 gives it what they need."""
    del model.model.source_adapter, model.model.edit_adapter, model.edit_head
    model.config.has_editing = model.model.config.has_editing = processor.has_editing = False
    model.config.stage = "3b"
    model.save_pretrained(tmp_path / "3b")
    processor.save_pretrained(tmp_path / "3b")
    result = _train("-m", tmp_path / "3b", "--data", data, "--dry-run", "--stage", "4")
    assert result.exit_code == 0, result.output
    assert "2 editing; 0 broken" in result.output
    result = _train("-m", tmp_path / "3b", "--data", data, "--dry-run", "--stage", "2")
    assert result.exit_code == 1 and "Stage 2 starts from a checkpoint of stage 1" in " ".join(result.output.split())


def test_dry_run_leaves_out_what_the_stage_does_not_train(compact, data):
    result = _train("-m", compact.folder, "--data", data, "--dry-run", "--set", "task_ratio={generation: 1}")
    assert result.exit_code == 0, result.output
    assert "2 rows: 2 generation; 0 broken" in result.output
    assert "2 understanding, 2 editing" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Usage"),
        (("--steps", 1), "--data is missing"),
        (("--data", "nowhere.jsonl", "-m", "x", "-o", "y"), "There is no data at"),
    ],
)
def test_what_is_missing_is_said(arguments, words):
    assert words in _train(*arguments).output


def test_wrong_settings_are_refused(compact, data, tmp_path):
    for more, words in (
        (("--set", "learning_rat=1"), "did you mean `learning_rate`"),
        (("--stage", "9"), "must be one of"),
        (("--stage", "1"), "Stage 1 starts from a checkpoint of stage 0"),
        (("--set", "global_batch_size=4"), "cannot make"),
        (("--set", "task_ratio={interleaved: 1}"), "has no such rows"),
    ):
        result = _fine_tune(compact, data, tmp_path / "run", "--steps", 1, *more)
        assert result.exit_code == 1 and words in " ".join(result.output.split()), result.output


def test_the_recipe_of_the_built_in_checkpoint_can_be_stopped(tmp_path):
    arguments = ("scenes", "--output", tmp_path / "run", "--tiny", "--device", "cpu")
    result = _train(*arguments, "--only", "stage-0", "--minutes", 10)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "run" / "stage-0" / "final" / "config.json").exists()
    result = _train("scenes", "--output", tmp_path / "run")
    assert result.exit_code == 1 and "another recipe" in result.output
