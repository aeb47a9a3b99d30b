"""Attention of a decoding step against transformers' own, and the mask that steps extend."""

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from transformers import AttentionInterface

from helpers import draw, picture
from wallaroo_hf.generation import attention
from wallaroo_hf.generation.attention import (
    SDPA,
    WIDTH_STEP,
    LayerConfig,
    StepMask,
    round_up,
    sdpa_forward,
    static_cache_length,
    step_attention_forward,
)

HEADS, KV_HEADS, HEAD_DIM = 6, 2, 8


def _states(num_queries, length):
    generator = torch.Generator().manual_seed(length)
    shapes = [(3, HEADS, num_queries, HEAD_DIM), (3, KV_HEADS, length, HEAD_DIM), (3, KV_HEADS, length, HEAD_DIM)]
    return [torch.randn(shape, generator=generator) for shape in shapes]


def _stock(*states, mask):
    module = SimpleNamespace(num_key_value_groups=HEADS // KV_HEADS, is_causal=True)
    return AttentionInterface()["sdpa"](module, *states, mask, scaling=0.3)[0]


@pytest.mark.parametrize("num_queries", [1, 2, 5])
def test_it_is_the_stock_attention(num_queries):
    states = _states(num_queries, 9)
    mask = torch.ones(3, 1, num_queries, 9, dtype=torch.bool).tril(9 - num_queries)
    mask[1, ..., :4] = False
    ours, weights = step_attention_forward(SimpleNamespace(), *states, mask, scaling=0.3)
    torch.testing.assert_close(ours, _stock(*states, mask=mask), atol=1e-6, rtol=0)
    assert ours.shape == (3, num_queries, HEADS, HEAD_DIM) and ours.is_contiguous() and weights is None


def test_keys_beyond_the_mask_are_not_read():
    query, key, value = _states(1, 9)
    mask = torch.ones(3, 1, 1, 6, dtype=torch.bool)
    expected = _stock(query, key[:, :, :6], value[:, :, :6], mask=mask)
    key[:, :, 6:] = value[:, :, 6:] = torch.nan
    ours, _ = step_attention_forward(SimpleNamespace(), query, key, value, mask, scaling=0.3)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)


def test_without_a_mask_it_is_left_to_transformers():
    states = _states(1, 9)
    module = SimpleNamespace(num_key_value_groups=HEADS // KV_HEADS, is_causal=True)
    ours, _ = sdpa_forward(module, *states, None, step_attention=True, scaling=0.3)
    assert torch.equal(ours, _stock(*states, mask=None))


def test_other_forwards_are_transformers_own():
    states = _states(2, 9)
    module = SimpleNamespace(num_key_value_groups=HEADS // KV_HEADS, is_causal=True)
    mask = torch.ones(3, 1, 2, 9, dtype=torch.bool).tril(7)
    ours, _ = sdpa_forward(module, *states, mask, scaling=0.3)
    assert torch.equal(ours, _stock(*states, mask=mask))


def test_masks_grow():
    prompts = torch.tensor([[1, 1, 1], [0, 1, 1]])
    mask = StepMask(prompts, 10, None)
    assert mask.extend(1).tolist() == [[[[True] * 4]], [[[False, True, True, True]]]]
    two = mask.extend(2)  # the first of the two does not see the second
    assert two.tolist() == [
        [[[True] * 5 + [False], [True] * 6]],
        [[[False, *[True] * 4, False], [False, *[True] * 5]]],
    ]
    assert mask.extend(1).shape == (2, 1, 1, 7)


def test_masks_of_static_caches_have_few_widths():
    """Whole steps, and all of the cache only where nothing less would do."""
    mask = StepMask(torch.ones(1, WIDTH_STEP - 2), 200, WIDTH_STEP + 40)
    first = mask.extend(1)
    assert first.shape[-1] == WIDTH_STEP and int(first.sum()) == WIDTH_STEP - 1
    widths = {mask.extend(1).shape[-1] for _ in range(40)}
    assert widths == {WIDTH_STEP, WIDTH_STEP + 39}
    assert mask.extend(1).shape[-1] == WIDTH_STEP + 40


def test_the_length_of_static_caches():
    """One for all usual prompts of a size, and more than a step ever reads."""
    assert {static_cache_length(prompt, 1056) for prompt in (1, 60, 256)} == {1409}
    assert static_cache_length(257, 1056) == 1665
    assert static_cache_length(200, 20) > round_up(200 + 20, WIDTH_STEP)


def test_layers_see_the_configuration_as_it_is():
    """Also after it was changed, and in a copy of the model."""
    text_config = SimpleNamespace(_attn_implementation="sdpa", hidden_size=7)
    seen = LayerConfig(text_config)
    assert (seen._attn_implementation, seen.hidden_size) == (SDPA, 7)
    copied_config, copied = copy.deepcopy((text_config, seen))
    copied_config._attn_implementation = "eager"
    assert (copied._attn_implementation, seen._attn_implementation) == ("eager", SDPA)
    assert pickle.loads(pickle.dumps(seen)).hidden_size == 7
    with pytest.raises(AttributeError, match="hidden_sizes"):
        seen.hidden_sizes  # noqa: B018


def test_steps_choose_their_attention_by_argument(model, processor, monkeypatch):
    """The configuration that other threads read is never changed; only steps read less than all of the cache."""
    text_config = model.config.get_text_config()
    configured, steps = [], []
    model.model.language_model.register_forward_hook(lambda *args: configured.append(text_config._attn_implementation))
    monkeypatch.setattr(
        attention,
        "step_attention_forward",
        lambda *args, **kwargs: steps.append(1) or step_attention_forward(*args, **kwargs),
    )
    inputs = processor(
        text=["blue", "a green bird"], images=[picture(1)] * 2, generation_mode="image", height=64, width=64,
        return_tensors="pt",
    )  # fmt: skip
    draw(model, inputs)
    assert set(configured) == {"sdpa"}
    assert len(steps) == (len(configured) - 1) * text_config.num_hidden_layers > 0
