"""The recipe of the small Show-o2, with few steps: it runs, is interrupted, goes on, and what it makes works."""

import json

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from wallaroo_hf.cli import app
from wallaroo_hf.families.registry import load
from wallaroo_hf.scenes import SceneDataset, check_caption
from wallaroo_hf.showo2.image_codecs import LinearCodec
from wallaroo_hf.showo2.processing.showo2_image_processor import ShowO2ImageProcessor
from wallaroo_hf.showo2.training.showo2_scene_builder import _pixels
from wallaroo_hf.showo2.training.showo2_scenes import ShowO2SceneRecipe, scene_recipe
from wallaroo_hf.training.scenes.scenes_run import OutOfTime, SceneRun

PARTS = ["codec", "stage-0", "stage-1a", "stage-2b", "stage-2c", "checkpoint"]


def test_the_recipe():
    steps = ShowO2SceneRecipe().training()
    assert [step.name for step in steps] == PARTS[1:-1]
    assert [step.base for step in steps] == [None, *PARTS[1:-2]]
    for step in steps:
        assert all(step.stage.task_ratio[task] > 0 for task in ("generation", "understanding"))
        assert step.stage.is_trained("model.time_embedding.linear_1.weight")
        assert not step.stage.is_trained("vae.basis")
        assert step.stage.global_batch_size % ShowO2SceneRecipe().per_device_batch_size == 0
    assert steps[0].drawn == {"lessons": 1} and "generation" in steps[-1].drawn


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that is stopped after each part, and goes on."""
    folder = tmp_path_factory.mktemp("run")
    stops = 0
    while True:
        run = SceneRun(folder, scene_recipe(tiny=True), minutes=0.0 if stops < 15 else None, device="cpu")
        try:
            return folder, run.run(), stops
        except OutOfTime:
            stops += 1


def test_a_run_that_is_stopped_again_and_again_finishes(finished):
    folder, checkpoint, stops = finished
    assert stops >= 5 and checkpoint == folder / "checkpoint"
    record = json.loads((checkpoint / "run.json").read_text(encoding="utf-8"))
    assert set(PARTS[:-1]) == set(record["parts"]) and record["parts"]["stage-2c"]["steps"] == 2
    assert record["parts"]["stage-0"]["stage"]["task_ratio"] == {"generation": 3, "understanding": 1}
    assert (folder / "stage-2c" / "losses.png").exists()
    assert list((folder / "stage-2c" / "previews").glob("*.png"))


def test_the_checkpoint_draws_and_answers(finished):
    _, folder, _ = finished
    checkpoint = load(folder, "cpu")
    assert checkpoint.family.title == "Show-o2" and checkpoint.model.config.stage == "2c"
    assert checkpoint.abilities.sizes[0] == (96, 96) and checkpoint.abilities.known_words
    assert {value.dtype for value in checkpoint.model.vae.state_dict().values()} == {torch.float32}
    assert checkpoint.model.dtype == torch.bfloat16
    row = SceneDataset("test", 1, tasks=["generation"])[0]
    inputs = checkpoint.processor(
        text=row["prompt"], generation_mode="image", height=64, width=128, return_tensors="pt"
    )
    drawn = checkpoint.model.draw(inputs, generators=torch.Generator().manual_seed(1), num_inference_steps=2)
    assert drawn.complete and drawn.pixels[0].shape == (3, 64, 128)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert size < 15 * 2**20


def test_the_codec_keeps_what_scenes_show(tmp_path):
    run = SceneRun(tmp_path, ShowO2SceneRecipe(codec_pictures=150), device="cpu")
    run.run("codec")
    codec = LinearCodec()
    codec.load_state_dict(load_file(tmp_path / "codec" / "codec.safetensors"))
    rows, good = SceneDataset("validation", 40, tasks=["generation"]), 0
    for index in range(len(rows)):
        row = rows[index]
        posterior = codec.encode_images(_pixels(row["images"][0])[None])
        back = ShowO2ImageProcessor().to_pictures(codec.decode_latents(posterior.mean))[0]
        good += bool(check_caption(back, row["spec"]))
    assert good == len(rows)


def test_families_are_named(tmp_path):
    given = ["train", "scenes", "--family", "llama", "-o", str(tmp_path / "run")]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 1 and "must be one of wallaroo, showo2" in " ".join(result.output.split())
    with pytest.raises(ValueError, match="There is no part 'vq'"):
        SceneRun(tmp_path, scene_recipe(tiny=True), device="cpu").run("vq")
    with pytest.raises(ValueError, match="starts from codec, which is not finished"):
        SceneRun(tmp_path, scene_recipe(tiny=True), device="cpu").run("stage-0")
    with pytest.raises(ValueError, match="another recipe"):
        SceneRun(tmp_path, scene_recipe(), device="cpu")
