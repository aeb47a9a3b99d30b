"""A kept cache goes on with what the chat shows next."""

import pytest
import torch
from transformers import DynamicCache

from helpers import picture


def _turn(role, words, *shown):
    pictures = [{"type": "image", "image": one} for one in shown]
    return {"role": role, "content": [*pictures, {"type": "text", "text": words}]}


FIRST, ANSWER = _turn("user", "What is it?", picture(1, 56, 56)), _turn("assistant", "a cat")
SECOND = _turn("user", "And this?", picture(2, 84, 56))
OPTIONS = {"do_sample": False, "max_new_tokens": 6}


def _prompt(processor, *turns):
    return processor.apply_chat_template(
        list(turns), tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )


def test_a_new_image_behind_a_kept_cache(model, processor):
    """With all of the processor's tensors, as transformers' own models are asked; the first image is not seen again."""
    cache = DynamicCache(config=model.config.get_text_config())
    begun = _prompt(processor, FIRST)
    model.generate(**begun, cache=cache, **OPTIONS)
    whole = _prompt(processor, FIRST, ANSWER, SECOND)
    same = (whole["input_ids"][0, : begun["input_ids"].shape[1]] == begun["input_ids"][0]).all()
    assert same
    cache.crop(begun["input_ids"].shape[1] - cache.get_seq_length())  # the answer that was given is another
    seen = []
    handle = model.model.visual.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    try:
        said = model.generate(**whole, cache=cache, **OPTIONS)
    finally:
        handle.remove()
    assert torch.equal(said, model.generate(**whole, **OPTIONS))
    assert seen == [int(whole["image_grid_thw"][1].prod())]


def test_words_alone_behind_a_kept_cache(model, processor):
    cache = DynamicCache(config=model.config.get_text_config())
    begun = _prompt(processor, FIRST)
    model.generate(**begun, cache=cache, **OPTIONS)
    cache.crop(begun["input_ids"].shape[1] - cache.get_seq_length())
    whole = _prompt(processor, FIRST, ANSWER, _turn("user", "Why?"))
    assert torch.equal(model.generate(**whole, cache=cache, **OPTIONS), model.generate(**whole, **OPTIONS))


def test_a_cache_that_ends_within_an_image(model, processor):
    cache = DynamicCache(config=model.config.get_text_config())
    whole = _prompt(processor, FIRST)
    model.generate(**whole, cache=cache, **OPTIONS)
    place = int((whole["input_ids"][0] == model.config.image_token_id).nonzero()[0])
    cache.crop(place + 1 - cache.get_seq_length())
    with pytest.raises(ValueError, match=r"ends within a picture .* cache\.crop\(-1\)"):
        model.generate(**whole, cache=cache, **OPTIONS)
