"""A stranger's family is trained by the same command: rows, runs, resuming, previews, and what it lacks."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from toy_family import save_toy
from toy_kit import ToyStage
from wallaroo_hf.cli import app
from wallaroo_hf.families.registry import load
from wallaroo_hf.training.lora import add_lora
from wallaroo_hf.training.run import RunOptions, build_trainer, load_training_data


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return save_toy(tmp_path_factory.mktemp("toy"))


def _lines(height=24, width=40):
    """Drawings and an answer; the pictures are half as strong as their colours' names say."""
    drawn = {"role": "assistant", "content": [{"type": "image"}]}
    asked = {"role": "user", "content": "a red thing"}
    drawing = {"messages": [asked, drawn], "images": ["red.png"], "height": height, "width": width}
    answer = [{"role": "user", "content": "blue?"}, {"role": "assistant", "content": "blue"}]
    return [drawing, drawing, {"messages": answer}]


@pytest.fixture
def data(tmp_path):
    Image.new("RGB", (20, 20), (191, 64, 64)).save(tmp_path / "red.png")
    return _write(tmp_path / "rows.jsonl", _lines())


def _write(path, lines):
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def _train(toy, data, *arguments, code=0):
    given = ("train", "-m", toy, "--data", data, "--device", "cpu", "--log-every", 1, *arguments)
    result = CliRunner().invoke(app, [str(argument) for argument in given])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def test_rows_are_looked_at(toy, data):
    said = _train(toy, data, "--dry-run")
    assert "3 rows: 1 understanding, 2 generation; 0 broken" in said and "3 steps of 2 rows" in said
    _write(data, _lines(width=44))  # no multiple of 8
    assert "2 of 3 rows cannot be trained on" in _train(toy, data, "--dry-run", code=1)
    _write(data, _lines())
    assert "3 of 3 rows cannot be trained on" in _train(toy, data, "--dry-run", "--set", "max_length=4", code=1)


def test_a_run_and_what_it_leaves(toy, data, tmp_path):
    output = tmp_path / "run"
    previews = _write(
        tmp_path / "previews.jsonl", [{"prompt": "red", "height": 64, "width": 128}, {"question": "so?"}]
    )
    common = ("-o", output, "--steps", 2, "--save-every", 1, "--previews", previews, "--preview-every", 1)
    said = _train(toy, data, *common)
    assert "Training: 1 of 1 parameters (100.0 %), 2 steps of 2 rows." in said
    history = json.loads((output / "checkpoint-2" / "trainer_state.json").read_text())["log_history"]
    assert [entry["loss_colour"] for entry in history] == [pytest.approx(entry["loss"]) for entry in history]
    assert len(history) == 2 and (output / "losses.png").exists()
    told = json.loads((output / "previews" / "step-000002.json").read_text())
    assert told["answers"][0]["answer"] == "ok" and (output / "previews" / "step-000002.png").exists()

    trained = load(output / "final", "cpu")
    assert trained.family.title == "Toy" and trained.model.config.stage == "1"
    assert 0.5 < trained.model.strength.item() < 0.99
    assert load(output / "checkpoint-2", "cpu").model.strength.item() == trained.model.strength.item()

    for folder in (output / "final", output / "checkpoint-2"):
        shutil.rmtree(folder)
    assert "Going on from" in _train(toy, data, *common)
    assert load(output / "final", "cpu").model.strength.item() == trained.model.strength.item()


def test_a_stage_by_name(toy, data, tmp_path):
    _train(
        toy,
        data,
        "-o",
        tmp_path / "run",
        "--stage",
        "1",
        "--steps",
        1,
        "--set",
        "task_ratio={generation: 1, understanding: 0}",
    )
    assert load(tmp_path / "run" / "final", "cpu").model.config.stage == "1"
    assert "Stage is '3b', but must be one of 1." in _train(toy, data, "--dry-run", "--stage", "3b", code=1)
    assert "has no setting `buckets`" in _train(toy, data, "--dry-run", "--set", "buckets=[[8, 8]]", code=1)


def test_a_rate_of_its_own(toy, data, tmp_path):
    chosen = ToyStage(task_ratio={"generation": 2, "understanding": 1}, strength_rate=0.25)
    sources, _ = load_training_data(str(data))
    trainer = build_trainer(RunOptions(toy, tmp_path / "run", device="cpu"), chosen, sources)
    trainer.create_optimizer_and_scheduler(1)
    assert [(group["lr"], len(group["params"])) for group in trainer.optimizer.param_groups if group["params"]] == [
        (0.25, 1)
    ]


@pytest.mark.parametrize("option", ["--lora", "--quantize", "--padding-free"])
def test_options_that_it_lacks_are_refused(toy, data, tmp_path, option):
    for more in (("--dry-run",), ("-o", tmp_path / "run")):
        said = _train(toy, data, option, *more, code=1)
        assert "Training of Toy models has no `" in said and "Traceback" not in said
    assert not (tmp_path / "run" / "settings.json").exists()


def test_what_it_is_not_trained_on_is_refused(toy, data, tmp_path):
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "bluer"}]},
        {"role": "assistant", "content": [{"type": "image"}]},
    ]
    _write(data, [{"messages": messages, "images": ["red.png", "red.png"]}])
    said = _train(toy, data, "--dry-run", code=1)
    assert "The data has editing rows, but Toy models are trained on understanding and generation here" in said
    result = CliRunner().invoke(app, ["encode", str(data), "-m", toy, "-o", str(tmp_path / "codes")])
    assert result.exit_code == 1 and "Training of Toy models has no `encode`" in " ".join(result.output.split())
    with pytest.raises(ValueError, match="Training of Toy models has no `lora`"):
        add_lora(load(toy, "cpu").model)


def test_evaluation_counts_every_row_once(toy, data, tmp_path):
    sources, _ = load_training_data(str(data))
    trainer = build_trainer(
        RunOptions(toy, tmp_path / "run", device="cpu"),
        ToyStage(task_ratio={"generation": 1, "understanding": 1}),
        sources,
    )
    rows = [dict(row) for found in sources.values() for source in found for row in source.rows]
    results = trainer.evaluate(rows)
    with torch.no_grad():
        batch = trainer.data_collator(rows)
        batch.pop("row_names")
        expected = trainer.wallaroo(**batch).loss
    assert results["eval_loss_colour"] == pytest.approx(float(expected)) == results["eval_loss"]
