"""Answers and mixed generation: the numbers of the authors' code, through `generate`."""

from __future__ import annotations

import pytest
import torch

from golden_showo2 import last, recorded


@pytest.fixture
def model(tiny_a):
    return tiny_a


def golden(name):
    return recorded(f"tiny_a/{name}")


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("published", [True, False])
def test_understanding(model, use_cache, published):
    """The script's tokens come from its own block; with the block as in training they are those of its full forward."""
    case = golden("understanding")
    inputs = {"input_ids": case["input_ids"], "image_latents": list(case["latents"])}
    outputs = model.generate(
        **inputs,
        max_new_tokens=len(case["script_greedy_tokens"]),
        published_eval=published,
        use_cache=use_cache,
        return_dict_in_generate=True,
        output_logits=True,
    )
    first = case["script_logits" if published else "logits"][:, -1]
    torch.testing.assert_close(outputs.logits[0], first, rtol=0, atol=3e-5)
    new = outputs.sequences[0, case["input_ids"].shape[1] :]
    assert torch.equal(new, case["script_greedy_tokens"]) is published
    if not published:
        assert torch.equal(new, _greedy(model, inputs, len(new)))


@pytest.mark.parametrize("published", [True, False])
def test_understanding_in_a_padded_batch(model, published):
    case, alone = golden("understanding"), golden("text_only")
    rows = [case["input_ids"][0], alone["input_ids"][0], case["input_ids"][0, :40]]
    longest = max(len(row) for row in rows)
    pad = model.config.pad_token_id
    ids = torch.stack([torch.nn.functional.pad(row, (longest - len(row), 0), value=pad) for row in rows])
    mask = torch.stack([(torch.arange(longest) >= longest - len(row)).long() for row in rows])
    latents = [case["latents"][0], case["latents"][0]]
    settings = {"max_new_tokens": 8, "published_eval": published}
    together = model.generate(input_ids=ids, attention_mask=mask, image_latents=latents, **settings)
    for row, own, images in zip(rows, together, (latents[:1], None, latents[1:]), strict=True):
        single = model.generate(input_ids=row[None], image_latents=images, **settings)
        assert torch.equal(own[longest:], single[0, len(row) :])


def test_text_only(model):
    case = golden("text_only")
    outputs = model.generate(case["input_ids"], max_new_tokens=1, return_dict_in_generate=True, output_logits=True)
    torch.testing.assert_close(outputs.logits[0], case["logits"][:, -1], rtol=0, atol=3e-5)


@pytest.mark.parametrize(("history", "name"), [(0.0, "logits_t0_as_in_script"), (1.0, "logits_t1_as_in_paper")])
def test_mixed_text_step(model, history, name):
    case = golden("mixed_text_step")
    inputs = {"input_ids": case["text_tokens"], "image_latents": list(case["latents"]), "timesteps": [history]}
    logits = last(model(**inputs).logits, case[name])
    torch.testing.assert_close(logits, case[name], rtol=0, atol=3e-5)
    outputs = model.generate(**inputs, max_new_tokens=1, return_dict_in_generate=True, output_logits=True)
    torch.testing.assert_close(outputs.logits[0], case[name][:, -1], rtol=0, atol=3e-5)


def test_mixed_generation_draws_behind_its_history(model):
    """The image before stays clean; the branch without condition does not know it."""
    case = golden("mixed_generation")
    start = case["modality_positions"][0, 1, 0]
    drawn = model.generate(
        input_ids=case["text_tokens"][:1, :start],
        image_latents=list(case["history"]),
        noise=list(case["noise"]),
        generation_mode="image",
        num_inference_steps=len(case["guided_velocity"]),
        guidance_scale=5.0,
        return_dict_in_generate=True,
    )
    scale = float(case["guided_velocity"].abs().max())
    for step, velocities in enumerate(drawn.velocities):
        torch.testing.assert_close(velocities[0], case["guided_velocity"][step, 1], rtol=0, atol=3e-6 * scale)
    torch.testing.assert_close(drawn.latents[0], case["latents"][0], rtol=0, atol=3e-6 * scale)


def test_video_frames_are_reduced(model):
    """Questions about videos: 14x14 tokens of each frame."""
    case = recorded("tiny_a/video", "frame_latents", "frame_embeds_14x14")
    frames = case["frame_latents"]
    tokens = 14 * 14 * len(frames)
    config = model.config
    image = [config.vision_start_token_id, *[config.image_token_id] * (tokens + 1), config.vision_end_token_id]
    ids = torch.tensor([[config.bos_token_id, *image, 5]])
    seen = []
    hook = model.model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    try:
        model.generate(ids, image_latents=[frames.transpose(0, 1)], max_new_tokens=2)
    finally:
        hook.remove()
    torch.testing.assert_close(seen[0][:, 3:-2], case["frame_embeds_14x14"], rtol=0, atol=1e-5)
    assert seen[1].shape[1] == 1


def _greedy(model, inputs, count):
    """Without a cache, by full forwards."""
    ids = inputs["input_ids"]
    never = model.config.special_token_ids
    for _ in range(count):
        logits = model(input_ids=ids, image_latents=inputs["image_latents"]).logits[:, -1]
        ids = torch.cat([ids, logits.index_fill(1, torch.tensor(never), -torch.inf).argmax(-1, keepdim=True)], dim=1)
    return ids[0, -count:]
