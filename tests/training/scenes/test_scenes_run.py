"""The recipe of the built-in checkpoint, with few steps: it runs, is interrupted, goes on, and what it makes works."""

import dataclasses
import json

import pytest

import wallaroo_hf
from helpers import draw, generators
from wallaroo_hf.scenes import SceneDataset
from wallaroo_hf.training.scenes.scenes_recipe import SceneRecipe, tiny_recipe
from wallaroo_hf.training.scenes.scenes_run import OutOfTime, SceneRun
from wallaroo_hf.training.trainer import WallarooTrainer


def test_recipe_follows_the_paper():
    steps = SceneRecipe().training()
    assert [step.stage.name for step in steps] == ["0", "1", "2", "3a", "3b", *["4"] * 9]
    ratios = {step.name: dict(step.stage.task_ratio) for step in steps}
    assert ratios["stage-2"] == {"understanding": 1, "generation": 4}
    assert ratios["stage-3b"] == {"understanding": 1, "generation": 2}
    assert all(ratios[steps[-1].name][task] > 0 for task in ("understanding", "generation", "editing", "interleaved"))
    small = {
        step.name for step in steps for shares in step.folders.values() if shares.keys() <= {"lessons", "edit_lessons"}
    }
    assert small == {"stage-1", "stage-2", "stage-4-lessons"}
    for step in steps:
        folders = {folder for shares in step.folders.values() for folder in shares}
        assert folders <= SceneRecipe().encoded_rows.keys() and step.folders.keys() <= step.stage.task_ratio.keys()
    assert [step.num_hidden_layers for step in steps] == [None] * 8 + [8] * 6
    assert steps[0].question_weights is None and steps[-1].question_weights["where"] > 1
    assert not any(step.stage.is_trained("model.visual.blocks.0.norm1.weight") for step in steps[1:])
    assert not any(step.stage.is_trained("model.vq_model.quantize.embedding.weight") for step in steps)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that is stopped after each part, and goes on."""
    folder = tmp_path_factory.mktemp("run")
    stops = 0
    while True:
        lines = []
        run = SceneRun(folder, tiny_recipe(), minutes=0.0 if stops < 30 else None, report=lines.append, device="cpu")
        try:
            return folder, run.run(), stops
        except OutOfTime:
            stops += 1


def test_a_run_that_is_stopped_again_and_again_finishes(finished):
    folder, checkpoint, stops = finished
    assert stops >= 9, "every part but the last was stopped"
    record = json.loads((checkpoint / "run.json").read_text(encoding="utf-8"))
    fourth = {
        "stage-4-lessons",
        "stage-4-mixed",
        "stage-4-large",
        "stage-4-deep",
        "stage-4-places",
        "stage-4-selection",
        "stage-4-objects",
        "stage-4",
    }
    assert {"vq", "rows", "stage-0", *fourth} <= set(record["parts"])
    assert record["parts"]["stage-4"]["steps"] == 2
    assert (folder / "stage-4" / "losses.png").exists()
    assert list((folder / "stage-4" / "previews").glob("*.png"))


def test_the_checkpoint_draws_edits_and_answers(finished):
    _, checkpoint, _ = finished
    model = wallaroo_hf.WallarooForConditionalGeneration.from_pretrained(checkpoint, dtype="auto")
    processor = wallaroo_hf.WallarooProcessor.from_pretrained(checkpoint)
    assert model.config.stage == "4" and model.config.has_editing
    assert model.config.text_config.num_hidden_layers == len(model.model.language_model.layers) == 8
    assert processor.buckets[0] == (96, 96)
    row = SceneDataset("test", 1, tasks=["editing"])[0]
    inputs = processor(text=row["prompt"], images=row["images"][0], generation_mode="image", return_tensors="pt")
    assert len(draw(model, inputs, generator=generators(1))[0]) > 30
    size = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
    assert size < 15 * 2**20


def test_seconds_are_kept_with_every_checkpoint(tmp_path, monkeypatch):
    """A run that is killed after a checkpoint has lost no more than what came after it."""
    run = SceneRun(tmp_path, tiny_recipe(), save_minutes=0.0, device="cpu")
    monkeypatch.setattr(WallarooTrainer, "training_step", _killed_at(2, WallarooTrainer.training_step))
    with pytest.raises(KeyboardInterrupt):
        run.run("stage-0")
    spent = run._record()["parts"]["stage-0"]["process_seconds"]
    assert spent > 0 and set(run._record()["parts"]["stage-0"]) == {"process_seconds"}
    monkeypatch.undo()
    again = SceneRun(tmp_path, tiny_recipe(), device="cpu")
    again.run("stage-0")
    assert again._record()["parts"]["stage-0"]["process_seconds"] > spent


def test_time_may_be_over_before_anything_was_logged(tmp_path):
    recipe = tiny_recipe()
    recipe = dataclasses.replace(recipe, steps={**recipe.steps, "0": 20})  # logged after every second one
    run = SceneRun(tmp_path, recipe, minutes=0.0, device="cpu")
    with pytest.raises(OutOfTime):
        run.run("stage-0")
    numbers = run._record()["parts"]["stage-0"]
    assert numbers["steps"] == 1 and numbers["last_losses"] == {}
    assert not (tmp_path / "stage-0" / "losses.png").exists()


def test_time_that_is_over_when_nothing_is_left_is_no_stop(tmp_path):
    with pytest.raises(OutOfTime):
        SceneRun(tmp_path, tiny_recipe(), minutes=0.0, device="cpu").run("stage-0")
    final = SceneRun(tmp_path, tiny_recipe(), minutes=0.0, device="cpu").run("stage-0")  # its second and last step
    assert (final / "config.json").exists()


def _killed_at(count, step):
    calls = iter(range(1, 100))

    def training_step(*args, **kwargs):
        if next(calls) > count:
            raise KeyboardInterrupt
        return step(*args, **kwargs)

    return training_step


def test_another_recipe_is_refused(finished, tmp_path):
    folder, _, _ = finished
    with pytest.raises(ValueError, match="another recipe"):
        SceneRun(folder, SceneRecipe())
    run = SceneRun(tmp_path, tiny_recipe(), device="cpu")
    with pytest.raises(ValueError, match="There is no part 'stage-9'"):
        run.run("stage-9")
    with pytest.raises(ValueError, match="starts from stage-1, which is not finished"):
        run.run("stage-2")
