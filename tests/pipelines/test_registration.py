"""The tasks that the package adds to transformers."""

import json

import pytest
from transformers import pipeline

from helpers import generators, picture
from wallaroo_hf import WallarooPipeline, default_checkpoint


@pytest.fixture
def saved(model, processor, tmp_path):
    """A registered pipeline, saved."""
    pipeline("text-to-image", model=model, processor=processor).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_the_default_model_is_the_built_in_checkpoint():
    pipe = pipeline("text-to-image")
    assert type(pipe) is WallarooPipeline and pipe.model.config._name_or_path == default_checkpoint()
    assert pipe("a red circle", height=64, width=128).images[0].size == (128, 64)


def test_a_saved_pipeline_loads_without_trusting_code(saved, model, processor):
    assert "custom_pipelines" not in json.loads((saved / "config.json").read_text(encoding="utf-8"))
    assert (saved / "processor_config.json").exists() and not list(saved.glob("*.py"))
    again = pipeline("text-to-image", model=str(saved))  # would ask for trust_remote_code otherwise
    one, other = (
        pipe("a cat", height=64, width=64, generator=generators(1)).images[0].tobytes()
        for pipe in (again, WallarooPipeline(model=model, processor=processor))
    )
    assert one == other


def test_editing_needs_a_picture(saved):
    pipe = pipeline("image-editing", model=str(saved))
    assert pipe("make it blue", image=picture(1, 60, 45), height=32, width=48).images[0].size == (48, 32)
    with pytest.raises(ValueError, match="pass it as `image`"):
        pipe("make it blue")


def test_saving_over_a_file_is_refused(model, processor, tmp_path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="is a file"):
        WallarooPipeline(model=model, processor=processor).save_pretrained(tmp_path / "file")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"
