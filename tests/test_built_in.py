"""The checkpoint that ships in the package: it loads, it is small, and it scores what its card says."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import wallaroo_hf
from wallaroo_hf.cli import app
from wallaroo_hf.evaluation.scenes import evaluate_scenes

FOLDER = Path(wallaroo_hf.default_checkpoint())
SCORES = json.loads((FOLDER / "scores.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def built_in():
    model = wallaroo_hf.WallarooForConditionalGeneration.from_pretrained(FOLDER, dtype="float32")
    return model.eval(), wallaroo_hf.WallarooProcessor.from_pretrained(FOLDER)


def test_it_is_small_and_whole():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 15 * 2**20
    assert {"config.json", "model.safetensors", "processor_config.json", "run.json", "README.md"} <= {
        path.name for path in FOLDER.iterdir()
    }


def test_card_has_the_scores():
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for task, by_language in SCORES["tasks"].items():
        assert f"{by_language['all']['overall']['value']:.3f}" in card, task


def test_scores_are_what_the_checkpoint_does(built_in, tmp_path):
    """A reduced benchmark; its intervals are wide, so only a checkpoint that does something else fails."""
    scores = evaluate_scenes(*built_in, tmp_path, num_items_per_task=36)
    for task, by_language in SCORES["tasks"].items():
        published = by_language["all"]["overall"]["value"]
        assert abs(scores.overall(task) - published) < 0.25, task
    assert scores.overall("reconstruction") >= 0.97


def test_it_is_the_default_of_the_command_line(tmp_path):
    file = tmp_path / "scene.png"
    result = CliRunner().invoke(app, ["generate", "a red circle", "--seed", "1", "-o", str(file), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert file.exists()
    result = CliRunner().invoke(app, ["ask", str(file), "what colour is the circle?", "--device", "cpu"])
    assert result.exit_code == 0 and result.output.strip()
