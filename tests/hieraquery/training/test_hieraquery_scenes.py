"""The recipe of the small HieraQuery, with few steps: it runs, is interrupted, goes on, and what it makes works."""

import json

import pytest
import torch
from safetensors.torch import load_file

from wallaroo_hf.families.registry import load
from wallaroo_hf.hieraquery.training.hieraquery_scenes import HieraQuerySceneRecipe, scene_recipe
from wallaroo_hf.scenes import SceneDataset
from wallaroo_hf.training.scenes.scenes_run import OutOfTime, SceneRun

STEPS = [f"stage-{name}" for name in ("t2i-small", "t2i", "reconstruction", "editing")]
PARTS = ["language-model", "rows", *STEPS, "checkpoint"]


def test_the_recipe():
    recipe = HieraQuerySceneRecipe()
    steps = recipe.training()
    assert [step.name for step in steps] == STEPS and [step.base for step in steps] == [None, *STEPS[:-1]]
    assert [step.stage.name for step in steps] == ["t2i", "t2i", "reconstruction", "editing"]
    for step in steps:
        assert step.stage.noise_draws >= 4 and step.stage.is_trained("dit.proj_out.weight")
        assert not step.stage.is_trained("mllm.lm_head.weight") and not step.stage.is_trained("codec.tokenizer.x")
        assert {name for folders in step.folders.values() for name in folders} <= recipe.encoded_rows.keys()
    assert steps[-1].stage.task_ratio["editing"] > 0 and steps[2].stage.reconstruction_rate > 0
    drawing = sum(step.stage.max_steps for step in steps[:2])
    assert drawing > 2 * sum(step.stage.max_steps for step in steps[2:])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that is stopped after each part, and goes on."""
    folder = tmp_path_factory.mktemp("run")
    stops = 0
    while True:
        run = SceneRun(folder, scene_recipe(tiny=True), minutes=0.0 if stops < 25 else None, device="cpu")
        try:
            return folder, run.run(), stops
        except OutOfTime:
            stops += 1


def test_a_run_that_is_stopped_again_and_again_finishes(finished):
    folder, checkpoint, stops = finished
    assert stops >= 6 and checkpoint == folder / "checkpoint"
    record = json.loads((checkpoint / "run.json").read_text(encoding="utf-8"))
    assert set(PARTS[:-1]) == set(record["parts"])
    assert record["parts"]["stage-editing"]["steps"] == 2
    assert record["parts"]["stage-editing"]["stage"]["trains"] == "all"
    assert (folder / "stage-t2i" / "losses.png").exists()
    assert list((folder / "stage-editing" / "previews").glob("*.png"))


def test_language_model_and_codec_are_as_they_were(finished):
    folder, _, _ = finished
    first, last = (load_file(folder / step / "final" / "model.safetensors") for step in (STEPS[0], STEPS[-1]))
    moved = {key.split(".")[0] for key in first if not torch.equal(first[key], last[key])}
    assert moved == {"queries", "connector", "dit", "alignment"}
    exported = load_file(folder / "language-model" / "model.safetensors")
    for key, tensor in exported.items():
        assert torch.equal(last[f"mllm.{key}"], tensor.float()), key


def test_the_checkpoint_draws_edits_and_answers(finished):
    _, folder, _ = finished
    checkpoint = load(folder, "cpu")
    abilities = checkpoint.abilities
    assert checkpoint.family.title == "HieraQuery" and checkpoint.model.config.stage == "editing"
    assert abilities.sizes[0] == (96, 96) and abilities.known_words and "image-editing" in abilities.tasks
    row = SceneDataset("test", 1, tasks=["editing"])[0]
    for images in (None, row["images"][:1]):
        inputs = checkpoint.processor(
            text=row["prompt"], images=images, generation_mode="image", height=64, width=128, return_tensors="pt"
        )
        drawn = checkpoint.model.draw(inputs, generators=torch.Generator().manual_seed(1), num_inference_steps=2)
        assert drawn.complete and drawn.pixels[0].shape == (3, 64, 128)


def test_parts_have_their_order(tmp_path):
    with pytest.raises(ValueError, match="starts from language-model, which is not finished"):
        SceneRun(tmp_path, scene_recipe(tiny=True), device="cpu").run("stage-t2i-small")
    with pytest.raises(ValueError, match="another recipe"):
        SceneRun(tmp_path, scene_recipe(), device="cpu")
