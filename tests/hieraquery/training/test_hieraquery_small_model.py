"""A small model around a language model and an image tokenizer that are there."""

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from wallaroo_hf.families.registry import family_of
from wallaroo_hf.files.built_in import FOLDER
from wallaroo_hf.hieraquery.training.hieraquery_small_model import new_small_hieraquery
from wallaroo_hf.scenes.scene import SIZES


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The built-in checkpoint's language model and image tokenizer."""
    wallaroo = family_of("wallaroo", "built-in")
    folder = wallaroo.resolve("export_language_model")(FOLDER, tmp_path_factory.mktemp("qwen") / "folder")
    return folder, wallaroo.training_kit().load_codec(str(FOLDER))


def test_what_is_there_stays_as_it_is(parts, tmp_path):
    folder, codec = parts
    model, processor = new_small_hieraquery(folder, codec, sizes=SIZES, num_layers=1, width=48, num_heads=2)
    there = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).state_dict()
    for name, tensor in model.mllm.state_dict().items():
        assert torch.equal(tensor, there[name]), name
    for name, tensor in model.codec.tokenizer.state_dict().items():
        assert torch.equal(tensor, codec.state_dict()[name]), name
    assert processor.drawing_sizes == list(SIZES) and processor.abilities.sizes == SIZES
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = type(processor).from_pretrained(tmp_path)
    assert again.drawing_sizes == list(SIZES) and again.size_multiple == 16
    batch = again(text="a red circle", generation_mode="image", height=64, width=128, return_tensors="pt")
    drawn = (
        type(model).from_pretrained(tmp_path).draw(batch, scales="all", generators=torch.Generator().manual_seed(1))
    )
    assert [tuple(one.shape) for one in drawn.native[0]] == [(8, 1, 2), (8, 3, 6), (8, 4, 8)]


def test_seeds_and_settings_count(parts):
    folder, codec = parts
    small = {"num_layers": 1, "width": 48, "num_heads": 2}
    first, again, other = (new_small_hieraquery(folder, codec, seed=seed, **small)[0] for seed in (1, 1, 2))
    name = "queries.group_0"
    assert torch.equal(first.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])
    single = [{"query_grid": (6, 6), "factor": 1.0}]
    model, _ = new_small_hieraquery(folder, codec, scales=single, condition="all", alignment_weight=0, **small)
    assert model.config.num_queries == [36] and model.alignment is None and model.config.condition == "all"


def test_coarse_sizes_are_the_nearest_of_the_same_shape(parts):
    model, _ = new_small_hieraquery(*parts, num_layers=1, width=48, num_heads=2)
    assert [model.scale_size(96, 96, scale) for scale in range(3)] == [(32, 32), (64, 64), (96, 96)]
    assert [model.scale_size(64, 128, scale) for scale in range(3)] == [(16, 32), (48, 96), (64, 128)]
    model.config.coarse_sizes = "exact"
    with pytest.raises(ValueError, match="does not fit scale 0"):
        model.scale_size(64, 128, 0)
