"""A family that has nothing in common with ours goes through the evaluations; see tests/toy_family.py."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from helpers import picture
from toy_family import save_toy
from wallaroo_hf.cli import app
from wallaroo_hf.evaluation import RECIPES, draw_benchmark, evaluate_scenes, read_geneval
from wallaroo_hf.evaluation.model_card import write_model_card
from wallaroo_hf.evaluation.recipes import find_recipe, recipes_of
from wallaroo_hf.families.benchmark_recipe import Recipe
from wallaroo_hf.families.registry import FAMILIES, load

ABLE = "reconstruction,generation,understanding"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return save_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def run(toy, tmp_path):
    """Runs a command on it; returns its results as one line, or if it shall fail its one sentence."""

    def command(*arguments, code=0):
        given = [*map(str, arguments), "-m", toy, "-o", str(tmp_path / "out"), "--device", "cpu"]
        result = CliRunner().invoke(app, ["evaluate", *given], env={"COLUMNS": "200"})
        assert result.exit_code == code, result.output + repr(result.exception)
        assert code == 0 or (result.stderr.count("\n") == 1 and not (tmp_path / "out").exists())
        return result.stdout if code == 0 else result.stderr

    return command


def test_scenes(run, tmp_path):
    """What it was drawn with is written down: its own settings, and no temperature."""
    scores = json.loads(run("scenes", "--tasks", ABLE, "--items", 3, "--set", "num_inference_steps=2", "--json"))
    assert list(scores["tasks"]) == ABLE.split(",")
    settings = scores["settings"]
    assert (settings["num_inference_steps"], settings["guidance_scale"]) == (2, 2.0)
    assert not {"temperature", "top_k", "guidance_min_p", "do_sample"} & settings.keys()
    assert Image.open(tmp_path / "out" / "pictures" / "generation-0001.png").size == (96, 96)


def test_settings_reach_its_model(toy, tmp_path, monkeypatch):
    checkpoint, seen = load(toy, "cpu"), {}
    draw = type(checkpoint.model).draw
    monkeypatch.setattr(type(checkpoint.model), "draw", lambda *a, **k: (seen.update(k), draw(*a, **k))[1])
    arguments = {"num_items_per_task": 1, "tasks": ["generation"]}
    evaluate_scenes(
        checkpoint.model,
        checkpoint.processor,
        tmp_path,
        guidance_scale=1.5,
        settings={"num_inference_steps": 7},
        **arguments,
    )
    assert (seen["guidance_scale"], seen["num_inference_steps"]) == (1.5, 7)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), f"does not do image-editing, so leave editing and chat out (--tasks {ABLE})"),
        (("--tasks", "editing"), "does not do image-editing, so leave editing out"),
        (("--tasks", ABLE, "--temperature", 0.5), "no setting `temperature`; it has `num_inference_steps`"),
        (("--tasks", ABLE, "--set", "top_p=0.5"), "no setting `top_p`; it has `num_inference_steps`"),
        (("--tasks", ABLE, "--set", "num_inference_steps=0"), "must be a whole number from 1 to 50"),
        (("--tasks", ABLE, "--set", "steps"), "takes NAME=VALUE"),
    ],
)
def test_what_it_lacks_is_refused(run, arguments, words):
    assert words in run("scenes", *arguments, code=1)


def test_settings_outside_of_what_does_well_are_told_of(toy, tmp_path):
    given = ["--tasks", "generation", "--items", "1", "--guidance-scale", "9", "-m", toy, "-o", str(tmp_path)]
    result = CliRunner().invoke(app, ["evaluate", "scenes", *given])
    assert result.exit_code == 0 and result.stderr.startswith("Note: `guidance_scale` is 9; ")


def test_sweep(run, tmp_path):
    arguments = ("sweep", "--tasks", "generation", "--items", 1)
    assert "nothing to try" in run(*arguments, code=1)  # it says nothing of what is worth trying
    assert "no setting `temperature`" in run(*arguments, "--temperature", "0.5", code=1)
    assert "no setting `window`" in run(*arguments, "--set", "window=1,2", code=1)
    arguments += ("--guidance-scale", "1,3", "--set", "num_inference_steps=1,2")
    found = json.loads(run(*arguments, "--json"))
    tried = [(entry["image_num_inference_steps"], entry["image_guidance_scale"]) for entry in found["entries"]]
    assert tried == [(1, 1.0), (1, 3.0), (2, 1.0), (2, 3.0)]
    assert (tmp_path / "out" / "num-inference-steps-2_guidance-3" / "scores.json").is_file()
    assert "num-inference-steps" in run(*arguments) and "temperature" not in run(*arguments)


@pytest.fixture
def prompts(tmp_path):
    (tmp_path / "g.jsonl").write_text(json.dumps({"tag": "colors", "prompt": "a red cow"}))
    return tmp_path / "g.jsonl"


def test_a_benchmark_without_a_recipe_needs_ones_own(run, toy, prompts, tmp_path):
    assert "Toy has no recipe for geneval" in run("geneval", "--prompts", prompts, code=1)
    checkpoint, plan = load(toy, "cpu"), read_geneval(prompts, 2)
    recipe = Recipe("mine", {"num_inference_steps": 2}).changed(guidance_scale=3.0)
    draw_benchmark(checkpoint.model, checkpoint.processor, plan, tmp_path / "own", recipe, resolution=64)
    settings = json.loads((tmp_path / "own" / "manifest.json").read_text())["settings"]
    assert (settings["recipe"], settings["num_inference_steps"]) == ("mine, but guidance_scale 3.0", 2)
    assert Image.open(tmp_path / "own" / "images" / "00000" / "samples" / "0001.png").size == (64, 64)
    for wrong, words in (({"top_k": 5}, "no setting `top_k`"), ({"template": 3}, "has no templates")):
        with pytest.raises(ValueError, match=words):
            draw_benchmark(
                checkpoint.model, checkpoint.processor, plan, tmp_path / "no", Recipe("mine", wrong), resolution=64
            )
    assert not (tmp_path / "no").exists()


def test_edits_are_refused(run, tmp_path):
    (tmp_path / "s").mkdir()
    picture(1).save(tmp_path / "s" / "1.png")
    (tmp_path / "e.json").write_text(json.dumps({"1": {"id": "1.png", "prompt": "bluer"}}))
    told = run("imgedit", "--prompts", tmp_path / "e.json", "--sources", tmp_path / "s", code=1)
    assert "does not do image-editing" in told


def test_ablations_are_for_wallaroo(toy, tmp_path):
    given = ["edit_head", "--base", toy, "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["evaluate", "ablation", *given])
    assert result.exit_code == 1 and "train Wallaroo checkpoints only" in result.stderr.replace("\n", " ")
    assert result.stderr.count("\n") == 1 and not (tmp_path / "out").exists()


def test_recipes_belong_to_families():
    assert recipes_of(FAMILIES["wallaroo"]) is RECIPES
    recipe = find_recipe(FAMILIES["wallaroo"], "dpg", "released")
    assert (recipe.guidance_scale, recipe.top_p, recipe.top_k, recipe.template) == (4.0, 0.95, 1000, 0)
    with pytest.raises(AttributeError, match="no setting `steps`"):
        _ = recipe.steps


def test_its_card_is_about_it(toy):
    card = write_model_card(toy, {"parts": {}}).read_text(encoding="utf-8")
    assert "# A small Toy, trained from nothing" in card and "It draws and answers about such scenes" in card
    assert "- toy\n- text-to-image\n---" in card and "allaroo" not in card.replace("wallaroo_hf", "").replace(
        "`wallaroo evaluate", ""
    )
