"""Nothing is kept on the model or its configuration while a forward runs: threads and interleaved sequences do not meet."""

from __future__ import annotations

import copy
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from helpers import draw, generators, picture


@pytest.fixture
def often_switching():
    """Threads take turns every tenth of a millisecond."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


def _jobs(processor):
    """Drawings, edits and answers with and without padding, pictures and windows, as functions of a model."""
    image = {"generation_mode": "image", "height": 64, "width": 64, "return_tensors": "pt"}
    prompts = processor(text=["blue", "a green bird on a long branch"], **image)
    edits = processor(text=["blue", "redder and much brighter"], images=[picture(1), picture(2)], **image)
    messages = [
        [{"role": "user", "content": [{"type": "image", "image": picture(3)}, {"type": "text", "text": "What?"}]}]
    ]
    asked = processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    return [
        lambda model: draw(model, prompts, generator=generators(1, 2)),
        lambda model: draw(model, edits, generator=generators(3, 4)),
        lambda model: draw(model, prompts, generator=generators(1, 2), window=6),
        lambda model: model.generate(**asked, do_sample=False, max_new_tokens=12).tolist(),
    ]


def _state(model):
    configs = (model.config, model.config.get_text_config(), model.config.vision_config, model.generation_config)
    return [copy.deepcopy(vars(config)) for config in configs], [
        {name: value for name, value in vars(module).items() if not name.startswith("_")} for module in model.modules()
    ]


def test_four_threads_draw_what_one_draws(model, processor, often_switching):
    jobs = _jobs(processor)
    expected = [job(model) for job in jobs]
    before = _state(model)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            assert list(pool.map(lambda job: job(model), jobs)) == expected
    configs, modules = _state(model)
    assert configs == before[0]
    assert [list(module) for module in modules] == [list(module) for module in before[1]]
    assert model.model.rope_deltas is None
    assert [job(model) for job in jobs] == expected


def _asked(processor, number, text):
    content = [{"type": "image", "image": picture(number, 96 + 32 * number, 96)}, {"type": "text", "text": text}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True,
    )  # fmt: skip


@torch.no_grad()
def test_caches_that_are_continued_in_turn(model, processor):
    """Each goes on where its own pictures put it: step by step, and by `generate`, equals a forward over everything."""
    prompts = [_asked(processor, number, text) for number, text in ((1, "What?"), (3, "And what is that over there?"))]
    caches = [model(**inputs, use_cache=True).cache for inputs in prompts]
    more = torch.tensor([[5, 6, 7]])
    for _ in range(2):
        for number, inputs in enumerate(prompts):
            stepwise = model(input_ids=more, cache=caches[number]).logits
            ids = torch.cat([inputs["input_ids"], more], dim=1)
            prompts[number] = {**{name: inputs[name] for name in ("pixel_values", "image_grid_thw")}, "input_ids": ids}
            torch.testing.assert_close(stepwise, model(**prompts[number]).logits[:, -3:], atol=1e-4, rtol=0)


def test_generate_goes_on_behind_pictures(model, processor):
    """Two chats that are continued in turn answer as each does by itself."""
    options = {"do_sample": False, "max_new_tokens": 5, "min_new_tokens": 5}
    prompts = [_asked(processor, number, text) for number, text in ((1, "What?"), (3, "And what is that over there?"))]
    expected, answered = [], []
    for inputs in prompts:
        expected.append(model.generate(**inputs, **options | {"max_new_tokens": 10, "min_new_tokens": 10}))
        answered.append(model.generate(**inputs, **options, return_dict_in_generate=True))
    for whole, first in zip(expected, answered, strict=True):
        rest = model.generate(input_ids=first.sequences, cache=first.cache, **options)
        assert torch.equal(rest, whole)
