import pytest
import torch
from torch.utils import deterministic

pytest.importorskip("diffusers")

from showo2.tiny_showo2 import tiny_showo2
from tiny_hieraquery import SD3, tiny_model


@pytest.fixture
def undefined_is_nan(monkeypatch):
    """What nobody writes is NaN, not by chance a number."""
    monkeypatch.setattr(deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def loaded_from_nothing(model):
    return type(model).from_pretrained(None, config=model.config, state_dict={})


@pytest.mark.parametrize("changes", [{}, {"dit": SD3}], ids=["sana", "sd3"])
def test_a_transformer_without_weights_begins_as_diffusers_begins_one(undefined_is_nan, changes):
    model = tiny_model(**changes)
    loaded = loaded_from_nothing(model)
    for (name, tensor), known in zip(loaded.dit.state_dict().items(), model.dit.state_dict().values(), strict=True):
        assert torch.isfinite(tensor).all(), name
        if name.endswith("scale_shift_table"):
            assert 0.5 < tensor.std() * tensor.shape[-1] ** 0.5 < 1.5
        if name.endswith("pos_embed"):
            assert torch.equal(tensor, known)


@pytest.mark.parametrize("codec", [{"type": "linear"}, {"type": "wan", "base_dim": 8, "num_res_blocks": 1}])
def test_a_codec_without_weights_begins_as_it_was_made(undefined_is_nan, codec):
    model = tiny_showo2(codec_config=codec)
    loaded = loaded_from_nothing(model)
    bare = [name for name in model.vae.state_dict() if name.rpartition(".")[2] in ("mean", "basis", "scale", "gamma")]
    assert bare
    for name in bare:
        assert torch.equal(loaded.vae.state_dict()[name], model.vae.state_dict()[name]), name
    assert all(torch.isfinite(tensor).all() for tensor in loaded.state_dict().values())
