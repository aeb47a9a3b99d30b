"""Decoding steps over a static cache, compiled: how many graphs there are, and that codes stay the same."""

import pytest
import torch
from torch._dynamo.utils import counters
from transformers import CompileConfig

from helpers import draw, generators, picture

PROMPTS = ["blue", "two very small green birds on a long wooden table", "a red circle"]


@pytest.fixture(autouse=True)
def _nothing_compiled():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def _compile_config(**settings):
    config = CompileConfig(**{"backend": "eager", "mode": None, "fullgraph": True, **settings})
    config._compile_all_devices = True
    return config


def _inputs(processor, text, edit=False, **size):
    images = [picture(1)] if edit else None
    return processor(text=text, images=images, generation_mode="image", return_tensors="pt", **size)


def _compiled(model, inputs, **settings):
    return draw(
        model,
        inputs,
        generator=generators(1),
        cache_implementation="static",
        compile_config=_compile_config(**settings),
    )


@pytest.mark.parametrize("edit", [False, True], ids=["text to image", "edit"])
def test_two_graphs_for_all_images_of_a_size(model, processor, edit):
    """One for steps of one token, one for a row's last code with its line break; prompts of other lengths, no more."""
    for text in PROMPTS:
        inputs = _inputs(processor, text, edit, height=64, width=64)
        assert _compiled(model, inputs) == draw(model, inputs, generator=generators(1))
        assert counters["stats"]["unique_graphs"] == 2 and not counters["graph_break"]


def test_a_graph_outlives_the_growth_of_the_mask(model, processor):
    """A larger image reads its cache in growing pieces: the width of the mask changes, the graphs do not."""
    widths = set()
    model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: (
            widths.add(kwargs["attention_mask"]["full_attention"].shape[-1])
            if isinstance(kwargs["attention_mask"], dict)
            else None
        ),
        with_kwargs=True,
    )
    inputs = _inputs(processor, "blue", height=176, width=176)
    expected = draw(model, inputs, generator=generators(1), cache_implementation="static")
    assert widths == {128, 256}
    model.model.language_model._forward_pre_hooks.clear()
    assert _compiled(model, inputs) == expected
    assert counters["stats"]["unique_graphs"] == 2


def test_without_line_breaks_one_graph(model, processor):
    inputs = _inputs(processor, "blue", height=64, width=64)
    model.generation_config.line_breaks = False
    assert _compiled(model, inputs) == draw(model, inputs, generator=generators(1))
    assert counters["stats"]["unique_graphs"] == 1


def test_attention_that_transformers_masks(model, processor):
    """With other attention than `sdpa` the steps compile too, over masks that transformers makes."""
    model.set_attn_implementation("eager")
    inputs = _inputs(processor, "blue", height=64, width=64)
    assert _compiled(model, inputs) == draw(model, inputs, generator=generators(1))
    assert counters["stats"]["unique_graphs"] == 2


@pytest.mark.slow
def test_inductor(model, processor):
    """Really compiled, on CPU in float32, the codes are those of the eager steps."""
    for text in PROMPTS:
        inputs = _inputs(processor, text, height=64, width=64)
        expected = draw(model, inputs, generator=generators(1))
        assert _compiled(model, inputs, backend="inductor") == expected
        assert counters["stats"]["unique_graphs"] == 2
