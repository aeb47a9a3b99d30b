"""Show-o2 under the judges: its own settings are used and written down, its published recipes are found."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from small_showo2 import save_showo2
from wallaroo_hf.cli import app
from wallaroo_hf.evaluation.recipes import find_recipe
from wallaroo_hf.families.registry import FAMILIES


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    sizes = [(96, 96), (64, 128), (128, 64)]  # of the scenes
    return save_showo2(tmp_path_factory.mktemp("showo2"), sizes=sizes)


def evaluate(folder, output, *arguments, code=0):
    """Runs a command; returns what it prints."""
    given = [*map(str, arguments), "-m", str(folder), "-o", str(output), "--device", "cpu"]
    result = CliRunner().invoke(app, ["evaluate", *given], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.stdout if code == 0 else result.stderr


def test_scenes(folder, tmp_path):
    tasks = "reconstruction,generation,understanding"
    few = ("--items", 2, "--set", "num_inference_steps=2")
    scores = json.loads(evaluate(folder, tmp_path / "out", "scenes", "--tasks", tasks, *few, "--json"))
    assert list(scores["tasks"]) == tasks.split(",")
    assert scores["settings"]["num_inference_steps"] == 2 and scores["settings"]["guidance_scale"] == 2.0
    refused = evaluate(folder, tmp_path / "no", "scenes", "--items", 2, code=1)
    assert "does not do image-editing, so leave editing and chat out" in refused


def test_benchmarks_by_the_published_recipes(folder, tmp_path):
    prompts = tmp_path / "g.jsonl"
    prompts.write_text(json.dumps({"tag": "colors", "prompt": "a red square"}))
    few = ("--prompts", prompts, "--set", "num_inference_steps=2", "--resolution", 64)
    evaluate(folder, tmp_path / "out", "geneval", *few)
    settings = json.loads((tmp_path / "out" / "manifest.json").read_text())["settings"]
    assert settings["guidance_scale"] == 7.5 and settings["num_inference_steps"] == 2


@pytest.mark.parametrize(("benchmark", "guidance", "calls"), [("geneval", 7.5, 99), ("dpg", 10.0, 49)])
def test_recipes(benchmark, guidance, calls):
    recipe = find_recipe(FAMILIES["showo2"], benchmark, "paper")
    assert (recipe.guidance_scale, recipe.num_inference_steps) == (guidance, calls)
