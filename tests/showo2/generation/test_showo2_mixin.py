"""Text mode: stock `generate` with images and videos in its prompts."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache, TextStreamer

from showo2.tiny_showo2 import BOS, END, IMAGE, VIDEO, image_ids, left_padded, tiny_showo2

PICTURE, OTHER = (torch.randn(16, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
ONE = [BOS, 1, 2, *image_ids(4), 5, 6]
TWO = [BOS, *image_ids(4), 7, *image_ids(4), 8]
WORDS = [BOS, 9, 10, 11]


@pytest.fixture(scope="module")
def model():
    return tiny_showo2()


def answer(model, row, latents=None, **settings):
    """New ids of one row alone."""
    tokens = model.generate(torch.tensor([row]), image_latents=latents, **{"max_new_tokens": 8, **settings})
    return tokens[:, len(row) :].tolist()


def counted(model, call):
    """What a call returns, and how many positions each forward of the language model had."""
    lengths = []
    hook = model.model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: lengths.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    try:
        return call(), lengths
    finally:
        hook.remove()


def test_a_prompt_is_read_once(model, monkeypatch):
    """One prefill, then a token each; images go through the visual path once, and the flow head has nothing to say."""
    monkeypatch.setattr(model.flow_head, "forward", None)
    seen = []
    hook = model.model.visual.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    new, lengths = counted(model, lambda: answer(model, ONE, [PICTURE], max_new_tokens=6))
    hook.remove()
    assert len(new[0]) == 6 and lengths == [len(ONE), 1, 1, 1, 1, 1] and seen == [1]


class HostReads(TorchDispatchMode):
    """Counts what would make the host wait for the device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.name() in ("aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero")
        return func(*args, **(kwargs or {}))


def test_a_step_of_an_answer_waits_no_more_than_its_language_model(model):
    """No look at the token for images, which cannot be in it."""
    counts = []
    for part in (model, model.model.language_model):
        cache = DynamicCache()
        with torch.no_grad():
            model(torch.tensor([WORDS]), cache=cache, use_cache=True)
            mask, positions = torch.ones(1, len(WORDS) + 1, dtype=torch.long), torch.tensor([[len(WORDS)]])
            with HostReads() as reads:
                part(torch.tensor([[7]]), cache=cache, attention_mask=mask, position_ids=positions)
        counts.append(reads.count)
    assert counts[0] == counts[1]


def test_cache_changes_no_token_and_saves_tenfold(model):
    """An answer of 100 tokens; for the real sizes benchmarks/showo2_flops.py computes it."""
    row = [BOS, *image_ids(64), 5]
    latents = [torch.randn(16, 16, 16, generator=torch.Generator().manual_seed(4))]
    settings = {"max_new_tokens": 100, "min_new_tokens": 100}
    with FlopCounterMode(display=False) as counter:
        new = answer(model, row, latents, **settings)
    cached = counter.get_total_flops()
    assert new == answer(model, row, latents, use_cache=False, **settings)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.tensor([row]), image_latents=latents, output_velocities=False, logits_to_keep=1)
    assert 100 * counter.get_total_flops() >= 10 * cached  # and those of longer rows cost more


def test_images_matter(model):
    assert answer(model, ONE, [PICTURE]) != answer(model, ONE, [OTHER])


@pytest.mark.parametrize("settings", [{}, {"cache_implementation": "static"}, {"use_cache": False}])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_padded_batch_says_what_rows_say_alone(settings, attention):
    model = tiny_showo2(attention=attention)
    batch = left_padded(ONE, WORDS, TWO)
    together = model.generate(**batch, image_latents=[PICTURE, OTHER, PICTURE], max_new_tokens=8, **settings)
    alone = [answer(model, ONE, [PICTURE]), answer(model, WORDS), answer(model, TWO, [OTHER, PICTURE])]
    assert together[:, batch["input_ids"].shape[1] :].tolist() == [row[0] for row in alone]


def test_pixels_are_encoded_once(model, monkeypatch):
    pixels = torch.rand(3, 32, 32) * 2 - 1
    latents = model.encode_pixels([pixels])
    calls = []
    encode = model.vae.encode_images
    monkeypatch.setattr(model.vae, "encode_images", lambda given: calls.append(1) or encode(given))
    with_pixels = model.generate(torch.tensor([ONE]), pixel_values=[pixels], max_new_tokens=8, use_cache=False)
    assert len(calls) == 1
    assert with_pixels[:, len(ONE) :].tolist() == answer(model, ONE, latents)


def test_published_answers_see_a_sample(model, monkeypatch):
    sampled = []
    monkeypatch.setattr(
        "wallaroo_hf.showo2.image_codecs.Posterior.sample", lambda posterior: sampled.append(1) or posterior.mean
    )
    for published in (True, False):
        model.generate(
            torch.tensor([ONE]), pixel_values=[torch.zeros(3, 32, 32)], max_new_tokens=1, published_eval=published
        )
    assert sampled == [1]


@pytest.mark.parametrize("settings", [{"do_sample": True}, {"num_beams": 2}, {"num_beams": 3, "do_sample": True}])
def test_copies_of_rows_have_their_images(model, settings):
    """Beams and several answers per row: images stay with their rows."""
    batch = left_padded(TWO, ONE)
    torch.manual_seed(0)
    tokens = model.generate(
        **batch,
        image_latents=[PICTURE, OTHER, OTHER],
        timesteps=[1.0, 0.5, 1.0],
        num_return_sequences=2,
        max_new_tokens=6,
        return_dict_in_generate=True,
        output_logits=True,
        **settings,
    )
    given = [[PICTURE, OTHER], [OTHER]]
    for row, (ids, images) in enumerate(zip((TWO, ONE), given, strict=True)):
        times = [1.0, 0.5] if row == 0 else [1.0]
        first = model(input_ids=torch.tensor([ids]), image_latents=images, timesteps=times).logits[0, -1]
        copies = len(tokens.logits[0]) // 2
        for copy in tokens.logits[0][row * copies : (row + 1) * copies]:
            torch.testing.assert_close(copy, first, rtol=0, atol=2e-5)


def test_beam_search_is_that_of_full_forwards(model):
    with_cache = answer(model, ONE, [PICTURE], num_beams=3)
    assert with_cache == answer(model, ONE, [PICTURE], num_beams=3, use_cache=False)


def test_embeddings_in_the_place_of_ids(model):
    embeds = model.get_input_embeddings()(torch.tensor([TWO]))
    latents = [PICTURE, OTHER]
    new = model.generate(inputs_embeds=embeds, image_latents=latents, max_new_tokens=8, num_return_sequences=1)
    assert new.tolist() == answer(model, TWO, latents)
    copies = model.generate(inputs_embeds=embeds, image_latents=latents, max_new_tokens=8, num_beams=2)
    assert copies.tolist() == answer(model, TWO, latents, num_beams=2)


def test_a_chat_goes_on_over_its_cache(model):
    """All images are given again; those that were read are not read again."""
    first = model.generate(
        torch.tensor([ONE]), image_latents=[PICTURE], max_new_tokens=4, return_dict_in_generate=True
    )
    more = [*first.sequences[0].tolist(), *image_ids(4), 3]
    (new, lengths) = counted(model, lambda: answer(model, more, [PICTURE, OTHER], cache=first.cache))
    assert lengths[0] == len(more) - len(ONE) - 3  # the last word was said and not read
    assert new == answer(model, more, [PICTURE, OTHER])


def test_videos(model):
    """One block of 196 tokens per frame; text goes on behind it, and other pictures beside it."""
    generator = torch.Generator().manual_seed(5)
    frames = torch.randn(16, 1, 1, 1, generator=generator) + torch.randn(16, 3, 30, 30, generator=generator)
    row, settings = [BOS, *image_ids(3 * 196), 4, 5], {"max_new_tokens": 8, "min_new_tokens": 8}
    (new, lengths) = counted(model, lambda: answer(model, row, [frames], **settings))
    assert lengths == [len(row), *[1] * 7]
    assert new == answer(model, row, [frames], use_cache=False, **settings)
    assert new != answer(model, row, [-frames], **settings)
    pixels = torch.rand(3, 3, 240, 240, generator=generator) * 2 - 1
    asked = model.generate(torch.tensor([row]), pixel_values=[pixels], **settings)
    assert asked[:, len(row) :].tolist() == answer(model, row, model.encode_pixels([pixels]), **settings)
    together = model.generate(**left_padded(ONE, row), image_latents=[PICTURE, frames], **settings)
    alone = [*answer(model, ONE, [PICTURE], **settings), *new]
    assert together[:, len(row) :].tolist() == alone


def test_published_videos_see_themselves_as_far_as_an_image(model):
    """Its block is as long as an image's, and lies one token late; the rest is causal."""
    row = [BOS, *image_ids(2 * 196), 4]
    masks = []
    hook = model.model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: masks.append(kwargs["attention_mask"]["full_attention"]), with_kwargs=True
    )
    answer(model, row, [torch.randn(16, 2, 30, 30)], max_new_tokens=1, published_eval=True)
    hook.remove()
    allowed = masks[0][0, 0]
    beyond = allowed & ~torch.ones_like(allowed).tril()
    grid = model.config.position_grid
    places = range(3, 3 + grid[0] * grid[1] + 1)
    assert {(int(query), int(key)) for query, key in beyond.nonzero()} == {
        (q, k) for q in places for k in places if k > q
    }


def wanting(token):
    """A logits processor that likes one token best."""

    def want(input_ids, scores):
        scores = scores.clone()
        scores[:, token] = scores.amax(dim=1) + 1
        return scores

    return want


@pytest.mark.parametrize("token", [IMAGE, VIDEO, END])
@pytest.mark.parametrize("use_cache", [True, False])
def test_tokens_of_images_are_not_said(model, token, use_cache):
    """Unless as the scripts do it, where they are words."""
    settings = {"use_cache": use_cache, "max_new_tokens": 3}
    bias = {"sequence_bias": {(token,): 100.0}}
    assert token not in answer(model, ONE, [PICTURE], **settings, **bias)[0]
    assert answer(model, ONE, [PICTURE], published_eval=True, **settings, **bias) == [[token] * 3]


def test_own_suppressed_tokens_stay_suppressed(model):
    first = answer(model, WORDS, max_new_tokens=1)[0][0]
    assert answer(model, WORDS, suppress_tokens=[first])[0][0] != first


def test_streaming(model):
    class Tokenizer:
        def decode(self, ids, **options):
            return " ".join(map(str, ids))

    heard = []

    class Streamer(TextStreamer):
        def on_finalized_text(self, text, stream_end=False):
            heard.append(text)

    new = answer(model, ONE, [PICTURE], streamer=Streamer(Tokenizer(), skip_prompt=True))
    assert "".join(heard).split() == [str(token) for token in new[0]]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"generation_mode": "draw"}, "'draw'"),
        ({"noise": [PICTURE]}, "`noise` is for drawing"),
        ({"image_size": torch.tensor([[32, 32]])}, "`image_size` is for drawing"),
        ({"pixel_values": [torch.zeros(3, 32, 32)]}, "give one of them"),
        ({"timesteps": [1.0, 1.0]}, "1 images, but 2 `timesteps`"),
        ({"image_latents": [PICTURE, OTHER]}, "1 images in `input_ids`, but 2"),
        ({"prefill_chunk_size": 4}, "`prefill_chunk_size`"),
        ({"max_new_token": 3}, "max_new_token"),
    ],
)
def test_what_cannot_work_is_said(model, settings, words):
    with pytest.raises(ValueError, match=words):
        model.generate(torch.tensor([ONE]), **{"image_latents": [PICTURE], "max_new_tokens": 2, **settings})


def test_a_prompt_beyond_the_positions_is_refused(model):
    with pytest.raises(ValueError, match="2049 tokens, but the model has 2048"):
        model.generate(torch.full((1, 2049), 3), max_new_tokens=1)
