"""Guidance beyond the paper: negative prompts for both tasks, two scales for edits."""

import pytest
import torch
from transformers import GenerationConfig

from helpers import draw, generators, picture
from wallaroo_hf.generation import NullPromptCache


def _edit(processor, **kwargs):
    arguments = {"generation_mode": "image", "height": 64, "width": 64, "return_tensors": "pt", **kwargs}
    return processor(text="make it blue", images=[picture(1)], **arguments)


def _first_scores(model, inputs, **kwargs):
    options = {"do_sample": False, "return_dict_in_generate": True, "output_scores": True, **kwargs}
    scores = model.generate(**inputs, generation_mode="image", **options).scores[0]
    return scores[:, model.config.text_config.vocab_size :]


def test_negative_prompts_keep_the_black_source(model, processor):
    plain, negative = _edit(processor), _edit(processor, negative_prompt="blurry")
    assert torch.equal(plain["negative_source_pixel_values"][0], negative["negative_source_pixel_values"][0])
    assert not torch.allclose(_first_scores(model, plain), _first_scores(model, negative), atol=1e-3)
    drawing = {"generation_mode": "image", "height": 64, "width": 64, "return_tensors": "pt"}
    scores = [
        _first_scores(model, processor(text="a cat", negative_prompt=negative, **drawing))
        for negative in ("", "a dog")
    ]
    assert not torch.allclose(*scores, atol=1e-3)


def test_two_scales(model, processor):
    """The three branches combine as `l_u + s_source (l_s - l_u) + s (l_c - l_s)`."""
    inputs = _edit(processor, source_guidance=True)
    branches = {}
    for prefix in ("", "unprompted_", "negative_"):
        names = ("input_ids", "attention_mask", "pixel_values", "image_grid_thw", "source_pixel_values")
        alone = {name: inputs[prefix + name] for name in names} | {"target_grid_hw": inputs["target_grid_hw"]}
        branches[prefix] = _first_scores(model, alone, guidance_scale=1.0)
    expected = branches["negative_"] + 1.5 * (branches["unprompted_"] - branches["negative_"])
    expected = expected + 4.0 * (branches[""] - branches["unprompted_"])
    scores = _first_scores(model, inputs, guidance_scale=4.0, source_guidance_scale=1.5)
    torch.testing.assert_close(scores, expected, atol=1e-3, rtol=0)


def test_two_scales_equal_one_where_both_are_equal(model, processor):
    """With equal scales the middle branch cancels out."""
    inputs = _edit(processor, source_guidance=True)
    two = _first_scores(model, inputs, guidance_scale=3.0, source_guidance_scale=3.0)
    torch.testing.assert_close(two, _first_scores(model, inputs, guidance_scale=3.0), atol=1e-3, rtol=0)
    assert len(draw(model, inputs, guidance_scale=3.0, source_guidance_scale=1.2)[0]) == 16 + 3 + 1


@pytest.mark.parametrize("two_scales", [False, True])
def test_implausible_codes_are_ruled_out(model, processor, two_scales):
    """Scores are those of guidance where the fully conditioned branch finds a code plausible, else -inf."""
    inputs = _edit(processor, source_guidance=two_scales)
    options = {"guidance_scale": 4.0} | ({"source_guidance_scale": 1.5} if two_scales else {})
    guided, kept = (_first_scores(model, inputs, guidance_min_p=share, **options) for share in (0, 0.5))
    conditional = _first_scores(model, inputs, guidance_scale=1.0).softmax(dim=-1)
    plausible = conditional >= 0.5 * conditional.amax(dim=-1, keepdim=True)
    assert 0 < plausible.sum() < plausible.numel() / 2
    assert torch.equal(kept.isfinite(), plausible)
    torch.testing.assert_close(kept[plausible], guided[plausible], rtol=0, atol=0)


def test_the_generation_config_says_which_codes_are_plausible(model, processor):
    """An argument comes before a config that is passed, that before the checkpoint's; 0 and no entry are as ever."""
    inputs, seeds = _edit(processor), {"top_k": 50}
    plain, kept = (draw(model, inputs, generator=generators(1), guidance_min_p=share, **seeds) for share in (0, 0.5))
    assert plain != kept
    assert draw(model, inputs, generator=generators(1), **seeds) == plain
    passed = GenerationConfig(image_guidance_min_p=0.5)
    assert draw(model, inputs, generator=generators(1), generation_config=passed, **seeds) == kept
    model.generation_config.image_guidance_min_p = 0.5
    assert draw(model, inputs, generator=generators(1), **seeds) == kept
    assert draw(model, inputs, generator=generators(1), guidance_min_p=0.0, **seeds) == plain


def test_without_guidance_plausibility_changes_nothing(model, processor):
    inputs, options = _edit(processor), {"guidance_scale": 1.0, "top_k": 50}
    plain, kept = (draw(model, inputs, generator=generators(1), guidance_min_p=share, **options) for share in (0, 0.9))
    assert plain == kept


@pytest.mark.parametrize("mode", ["image", "auto"])
@pytest.mark.parametrize("share", [-0.1, 1.01, True, float("nan"), "0.1"], ids=str)
def test_a_share_that_cannot_be(model, processor, mode, share):
    """Also where guidance is off, and as an entry of a generation config."""
    inputs = _edit(processor)
    sentence = "`guidance_min_p` is .* but must be a number from 0"
    with pytest.raises(ValueError, match=sentence):
        model.generate(**inputs, generation_mode=mode, guidance_min_p=share, guidance_scale=1.0)
    model.generation_config.image_guidance_min_p = share
    with pytest.raises(ValueError, match=sentence):
        model.generate(**inputs, generation_mode=mode)


def test_answers_have_no_plausible_codes(model, processor):
    inputs = processor(text="Hello", return_tensors="pt")
    with pytest.raises(ValueError, match="`guidance_min_p` is for drawing"):
        model.generate(**inputs, guidance_min_p=0.1)


def test_the_third_branch_must_be_prepared(model, processor):
    with pytest.raises(ValueError, match="source_guidance=True"):
        model.generate(**_edit(processor), generation_mode="image", source_guidance_scale=1.5)


def test_a_shared_prompt_is_filled_once(model, processor):
    """With `num_return_sequences` the decoder sees each prompt of each branch once."""
    rows = []
    model.model.language_model.register_forward_hook(
        lambda module, args, kwargs, output: rows.append(kwargs["inputs_embeds"].shape[:2]), with_kwargs=True
    )
    inputs = _edit(processor)
    length = inputs["input_ids"].shape[1]
    for cache in (None, "static"):
        rows.clear()
        draw(model, inputs, num_return_sequences=1, cache_implementation=cache)
        model.generate(**inputs, generation_mode="image", num_return_sequences=3, cache_implementation=cache)
        assert [shape for shape in rows if shape[1] == length] == [(2, length), (2, length)]
        assert rows[-1] == (6, 1)


@pytest.mark.parametrize("cache_implementation", [None, "static"])
def test_null_prompts_are_kept(model, processor, cache_implementation):
    """A second edit of the same size runs its conditional prompt only, and draws the same codes as without the store."""
    first = processor(
        text=["make it blue", "now a very different instruction"],
        images=[picture(1), picture(2)],
        generation_mode="image",
        height=[64, 96],
        width=[64, 64],
        return_tensors="pt",
    )
    second = processor(
        text=["make it red"], images=[picture(3)], generation_mode="image", height=64, width=64, return_tensors="pt"
    )
    options = {"cache_implementation": cache_implementation, "top_k": 20}
    plain = [
        draw(model, first, generator=generators(1, 2), **options),
        draw(model, second, generator=generators(3), **options),
    ]
    rows = []
    model.model.language_model.register_forward_hook(
        lambda module, args, kwargs, output: rows.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    store = NullPromptCache()
    kept = [draw(model, first, generator=generators(1, 2), null_prompt_cache=store, **options)]
    assert len(store) == 2
    rows.clear()
    kept.append(draw(model, second, generator=generators(3), null_prompt_cache=store, **options))
    assert kept == plain
    prefills = [shape for shape in rows if shape[1] > 2]
    assert prefills == [(1, second["input_ids"].shape[1])] and len(store) == 2
    store.clear()
    assert len(store) == 0


def test_null_prompts_with_copies_and_two_scales(model, processor):
    inputs = _edit(processor, source_guidance=True)
    options = {"source_guidance_scale": 1.3, "num_return_sequences": 2, "top_k": 20, "generation_mode": "image"}
    plain = model.generate(**inputs, generator=generators(1, 2), **options)
    store = NullPromptCache(max_prompts=1)
    for _ in range(2):
        kept = model.generate(**inputs, generator=generators(1, 2), null_prompt_cache=store, **options)
        assert torch.equal(kept, plain)
    assert len(store) == 1
