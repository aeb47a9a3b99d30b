"""`image_` entries of a generation config: each counts for images, and none that means nothing passes in silence."""

from __future__ import annotations

import pytest
from transformers import GenerationConfig

from helpers import draw, generators


def _inputs(processor, mode="image"):
    if mode == "image":
        return processor(text="a cat", generation_mode="image", height=64, width=64, return_tensors="pt")
    return processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "text", "text": "a cat"}]}],
        tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True,
        processor_kwargs={"generation_mode": "auto", "height": 64, "width": 64},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("top_p", 0.1),
        ("min_p", 0.9),
        ("top_k", 3),
        ("temperature", 0.2),
        ("typical_p", 0.2),
    ],
)
@pytest.mark.parametrize("own", [True, False], ids=["the model's", "passed"])
def test_an_entry_is_the_argument(model, processor, monkeypatch, name, value, own):
    inputs, entry = _inputs(processor), f"image_{name}"
    before = draw(model, inputs, generator=generators(3))
    expected = draw(model, inputs, generator=generators(3), **{name: value})
    assert expected != before
    if own:
        monkeypatch.setattr(model.generation_config, entry, value, raising=False)
        passed = {}
    else:
        passed = {"generation_config": GenerationConfig(do_sample=True, **{entry: value})}
    assert draw(model, inputs, generator=generators(3), **passed) == expected
    neutral = {"top_p": 1.0, "min_p": 0.0, "top_k": 1000, "temperature": 1.0, "typical_p": 1.0}
    assert draw(model, inputs, generator=generators(3), **passed, **{name: neutral[name]}) == before


@pytest.mark.parametrize("name", ["image_topp", "image_top_P", "image_guidance", "image_num_beams"])
@pytest.mark.parametrize("mode", ["image", "auto"])
def test_an_entry_that_means_nothing_is_refused(model, processor, name, mode):
    config = GenerationConfig(do_sample=True, **{name: 3})
    with pytest.raises(ValueError, match=f"`{name}`, which means nothing"):
        model.generate(**_inputs(processor, mode), generation_mode=mode, generation_config=config)


def test_the_nearest_entry_is_named(model, processor, monkeypatch):
    monkeypatch.setattr(model.generation_config, "image_temprature", 0.5, raising=False)
    with pytest.raises(ValueError, match="did you mean `image_temperature`"):
        model.generate(**_inputs(processor), generation_mode="image")
