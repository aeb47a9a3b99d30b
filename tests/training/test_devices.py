"""Where a run trains: what is asked for, what is there, and what is refused in a sentence."""

import pytest
import torch

from wallaroo_hf.training.devices import training_device
from wallaroo_hf.training.run import RunOptions, build_trainer
from wallaroo_hf.training.scenes.scenes_recipe import tiny_recipe
from wallaroo_hf.training.scenes.scenes_run import SceneRun
from wallaroo_hf.training.stages import stage


@pytest.fixture
def on_a_gpu(monkeypatch):
    """A machine with a GPU, as far as asking goes."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))


@pytest.fixture
def without_a_gpu(monkeypatch):
    """A machine without one."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)


@pytest.mark.usefixtures("on_a_gpu")
def test_a_gpu_is_taken_where_there_is_one():
    assert training_device() == training_device("cuda") == training_device("cuda:0") == torch.device("cuda")
    assert training_device("cpu") == torch.device("cpu")
    for name, words in (
        ("cuda:1", "give cuda, and let CUDA_VISIBLE_DEVICES=1 choose"),
        ("cpuu", "'cpuu' is not there to train on; give cpu or cuda"),
        ("meta", "give cpu or cuda"),
    ):
        with pytest.raises(ValueError, match=words):
            training_device(name)


@pytest.mark.usefixtures("without_a_gpu")
def test_a_gpu_that_is_not_there_is_refused(compact, tmp_path):
    assert training_device() == training_device("cpu") == torch.device("cpu")
    words = "'cuda' is not there to train on; give cpu"
    with pytest.raises(ValueError, match=words):
        build_trainer(RunOptions(str(compact.folder), tmp_path, device="cuda"), stage("4"), {})
    with pytest.raises(ValueError, match=words):
        SceneRun(tmp_path / "run", tiny_recipe(), device="cuda")
    assert not (tmp_path / "run").exists()


def test_all_parts_of_the_scenes_recipe_take_the_same_device(tmp_path, request):
    """Image tokenizer and encoding on the CPU, stages on the GPU, was what came out of torch's default device."""
    request.getfixturevalue("without_a_gpu")
    run = SceneRun(tmp_path, tiny_recipe())
    assert run.device == torch.device("cpu")
    assert run._arguments(run.recipe.training()[0], tmp_path).use_cpu
    request.getfixturevalue("on_a_gpu")
    assert SceneRun(tmp_path, tiny_recipe()).device == torch.device("cuda")
