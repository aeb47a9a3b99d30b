"""Drawing: against diffusers' own pipelines, alone and in batches, guided, followed, stopped, at every scale."""

from __future__ import annotations

import functools

import pytest
import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    SanaPipeline,
    StableDiffusion3Pipeline,
)

from small_hieraquery import new_hieraquery, picture
from tiny_hieraquery import SANA, SD3

EULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
DPM = {
    "_class_name": "DPMSolverMultistepScheduler",
    **{"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0},
}
DC = {
    "_class_name": "AutoencoderDC",
    **{"latent_channels": 4, "attention_head_dim": 4, "scaling_factor": 0.41},
    **{"encoder_block_out_channels": [8, 8], "decoder_block_out_channels": [8, 8]},
    **{"encoder_layers_per_block": [1, 1], "decoder_layers_per_block": [1, 1]},
    **{"encoder_block_types": "ResBlock", "decoder_block_types": "ResBlock"},
    **{"encoder_qkv_multiscales": [[], []], "decoder_qkv_multiscales": [[], []]},
}
KL = {
    "_class_name": "AutoencoderKL",
    **{"latent_channels": 4, "block_out_channels": [8, 8], "norm_num_groups": 4},
    **{"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2},
    **{"scaling_factor": 1.5, "shift_factor": 0.06, "use_quant_conv": False, "use_post_quant_conv": False},
}
WIDE = {"in_channels": 4, "out_channels": 4, "patch_size": 2}
SANA_PARTS = {"dit": {**SANA, **WIDE}, "codec": DC}
PARTS: dict = {"sana": {}, "sd3": {"dit": {**SD3, "pos_embed_max_size": 10}}}
SD3_PARTS = {"dit": {**SD3, **WIDE, "pos_embed_max_size": 16}, "codec": KL}


@functools.cache
def small(name="sana"):
    return new_hieraquery(**PARTS[name])


def prepare(processor, *words, **options):
    return processor(text=list(words), generation_mode="image", return_tensors="pt", **options)


def seeds(*numbers):
    return [torch.Generator().manual_seed(number) for number in numbers]


def draw(model, batch, *numbers, **settings):
    settings = {"num_inference_steps": 4, "guidance_scale": 3.0, **settings}
    return model.draw(batch, generators=seeds(*numbers), **settings)


def condition_of(model, batch):
    sizes = [tuple(size) for size in batch["image_size"].tolist()]
    read = {name: value for name, value in batch.items() if name != "image_size"}
    with torch.no_grad():
        return model.conditions(**read, scales=[-1], sizes=sizes)[0]


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # diffusers with a new numpy
@pytest.mark.parametrize("guidance", [1.0, 4.5])
@pytest.mark.parametrize("scheduler", [EULER, DPM], ids=["euler", "dpm"])
def test_equal_to_diffusers_sana(scheduler, guidance):
    model, processor = new_hieraquery(**SANA_PARTS, scheduler=scheduler)
    batch = prepare(processor, "a red square", "blue circle", height=32, width=64)
    condition, ones = condition_of(model, batch), torch.ones(2, 4)
    assert isinstance(model.codec.vae, AutoencoderDC)
    own = {"euler": FlowMatchEulerDiscreteScheduler, "dpm": DPMSolverMultistepScheduler}
    kind = own["euler" if scheduler is EULER else "dpm"]
    pipe = SanaPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=model.codec.vae,
        transformer=model.dit,
        scheduler=kind.from_config({name: value for name, value in scheduler.items() if name != "_class_name"}),
    )
    pipe.set_progress_bar_config(disable=True)
    noise = [torch.randn(4, 16, 32, generator=one) for one in seeds(1, 2)]
    expected = pipe(
        **{"prompt": None, "negative_prompt": None, "use_resolution_binning": False, "output_type": "latent"},
        **{"prompt_embeds": condition, "prompt_attention_mask": ones, "latents": torch.stack(noise)},
        **{"negative_prompt_embeds": torch.zeros_like(condition), "negative_prompt_attention_mask": ones},
        **{"num_inference_steps": 6, "guidance_scale": guidance, "height": 32, "width": 64},
    ).images
    drawn = draw(model, batch, 1, 2, num_inference_steps=6, guidance_scale=guidance)
    torch.testing.assert_close(torch.stack(drawn.native), expected, rtol=0, atol=1e-5)
    decoded = pipe.vae.decode(expected[:1] / pipe.vae.config.scaling_factor).sample[0].clamp(-1, 1)
    torch.testing.assert_close(drawn.pixels[0], decoded, rtol=0, atol=1e-4)


@pytest.mark.parametrize("guidance", [1.0, 7.0])
def test_equal_to_diffusers_sd3(guidance):
    model, processor = new_hieraquery(**SD3_PARTS, scheduler=EULER)
    batch = prepare(processor, "a red square", "blue circle", height=32, width=64)
    condition = condition_of(model, batch)
    pooled = model.dit_adapter.pooled(condition)
    assert isinstance(model.codec.vae, AutoencoderKL)
    pipe = StableDiffusion3Pipeline(
        transformer=model.dit,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=model.codec.vae,
        **dict.fromkeys(
            ("text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3")
        ),
    )
    pipe.set_progress_bar_config(disable=True)
    noise = [torch.randn(4, 16, 32, generator=one) for one in seeds(1, 2)]
    expected = pipe(
        **{"prompt_embeds": condition, "pooled_prompt_embeds": pooled, "latents": torch.stack(noise)},
        **{"negative_prompt_embeds": torch.zeros_like(condition), "output_type": "latent"},
        **{"negative_pooled_prompt_embeds": torch.zeros_like(pooled), "height": 32, "width": 64},
        **{"num_inference_steps": 6, "guidance_scale": guidance},
    ).images
    drawn = draw(model, batch, 1, 2, num_inference_steps=6, guidance_scale=guidance)
    torch.testing.assert_close(torch.stack(drawn.native), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["sana", "sd3"])
def test_a_batch_is_as_its_rows_alone(name):
    """Prompts of several lengths, one of them with a picture, and pictures of several sizes."""
    model, processor = new_hieraquery(**PARTS[name])
    model = model.double()  # weights are so large here that rounding would hide what one row does to another
    sources = [None, picture(), None]
    sizes = {"height": [32, 32, 24], "width": [32, 32, 40]}
    words = ["a red square above a blue circle", "make it green", "red"]
    drawn = draw(model, prepare(processor, *words, images=sources, **sizes), 1, 2, 3)
    assert [tuple(one.shape) for one in drawn.pixels] == [(3, 32, 32), (3, 32, 32), (3, 24, 40)]
    for row, seed in enumerate((1, 2, 3)):
        own = {key: value[row] for key, value in sizes.items()}
        images = None if sources[row] is None else [sources[row]]
        alone = draw(model, prepare(processor, words[row], images=images, **own), seed)
        torch.testing.assert_close(drawn.native[row], alone.native[0], rtol=0, atol=1e-5)


def test_copies_read_the_prompt_once(monkeypatch):
    model, processor = small()
    calls = []
    monkeypatch.setattr(model.mllm.model.visual, "forward", lambda *a, **k: pytest.fail("no picture was given"))
    whole = model.conditions
    monkeypatch.setattr(model, "conditions", lambda *a, **k: calls.append(len(k["input_ids"])) or whole(*a, **k))
    batch = prepare(processor, "a red square", "blue")
    drawn = model.draw(batch, copies=2, generators=seeds(1, 2, 3, 4), num_inference_steps=4, guidance_scale=3.0)
    assert calls == [2]
    for row, image in ((0, 1), (1, 2)):
        alone = draw(model, prepare(processor, ("a red square", "blue")[row]), image + 1)
        torch.testing.assert_close(drawn.native[image], alone.native[0], rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"words": "blue"},
        {"seed": 2},
        {"guidance_scale": 1.0},
        {"num_inference_steps": 5},
        {"scheduler": FlowMatchHeunDiscreteScheduler()},
        {"images": [picture()]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_is_asked_for_matters(change):
    model, processor = small()

    def one(words="a red square", seed=1, images=None, **settings):
        return draw(model, prepare(processor, words, images=images), seed, **settings).native[0]

    assert (one() - one(**change)).abs().max() > 1e-3


def test_the_source_matters():
    model, processor = small()
    red, blue = (
        draw(model, prepare(processor, "make it green", images=[picture(colour)]), 1).native[0]
        for colour in ((200, 40, 40), (40, 40, 200))
    )
    assert (red - blue).abs().max() > 1e-3


def test_guidance_goes_on_from_no_condition():
    """By the formula, with two single velocities of the transformer."""
    model, processor = small()
    batch = prepare(processor, "a red square")
    condition, start = condition_of(model, batch), torch.randn(3, 32, 32, generator=seeds(1)[0])[None]
    with torch.no_grad():
        given, null = (
            model.dit_adapter.velocity(model.dit, start, torch.ones(1), one)
            for one in (condition, torch.zeros_like(condition))
        )
    drawn = draw(model, batch, 1, num_inference_steps=1, guidance_scale=2.5)
    torch.testing.assert_close(drawn.native[0], (start - (null + 2.5 * (given - null)))[0], rtol=0, atol=5e-5)


@pytest.mark.parametrize("name", ["sana", "sd3"])
def test_all_scales(name):
    model, processor = small(name)
    batch = prepare(processor, "a red square", "blue", height=[32, 24], width=[32, 40])
    finest, all_of_them = draw(model, batch, 1, 2), draw(model, batch, 1, 2, scales="all")
    assert [[tuple(one.shape[1:]) for one in image] for image in all_of_them.native] == [
        [(16, 16), (32, 32)],
        [(12, 20), (24, 40)],
    ]
    for image in (0, 1):
        assert torch.equal(all_of_them.native[image][-1], finest.native[image])  # a seed gives the same picture
        assert torch.equal(all_of_them.pixels[image], finest.pixels[image])
    shown = processor.side_by_side(model.decode_scales(all_of_them.native)[1])
    assert shown.size == (80, 24)
    other = draw(model, prepare(processor, "blue circle"), 1, scales="all").native[0][0]
    assert (other - all_of_them.native[0][0]).abs().max() > 1e-3  # its condition is of the prompt too


def test_previews_point_to_the_end():
    model, processor = small()
    seen = []

    def follow(step):
        seen.append((step.image, step.done, step.total, step.preview()))

    batch = prepare(processor, "a red square")
    drawn = model.draw(batch, generators=seeds(1), follow=follow, num_inference_steps=3, guidance_scale=1.0)
    assert [one[:3] for one in seen] == [(0, 1, 3), (0, 2, 3), (0, 3, 3)]
    assert torch.equal(seen[0][3], model.decode_latents(draw_to_one(model, batch)))
    torch.testing.assert_close(seen[-1][3], drawn.pixels[0], rtol=0, atol=1e-5)  # Euler's last step goes there


def draw_to_one(model, batch):
    start = torch.randn(3, 32, 32, generator=seeds(1)[0])[None]
    with torch.no_grad():
        velocity = model.dit_adapter.velocity(model.dit, start, torch.ones(1), condition_of(model, batch))
    return (start - velocity)[0]


def test_stops_where_it_is_told_to():
    model, processor = small()
    batch = prepare(processor, "a red square")
    seen = []
    stopped = model.draw(
        batch,
        generators=seeds(1),
        follow=lambda step: seen.append(step.preview()) or step.done < 2,
        num_inference_steps=9,
    )
    assert len(seen) == 2 and not stopped.complete and torch.equal(stopped.pixels[0], seen[-1])


def test_a_session_admits_and_cancels():
    model, processor = small()
    session = model.session(3, num_inference_steps=3, guidance_scale=3.0)
    first = session.admit(prepare(processor, "a red square"), seeds(1)[0])
    session.step()
    second = session.admit(prepare(processor, "make it green", images=[picture()]), seeds(2)[0])
    third = session.admit(prepare(processor, "blue"), seeds(3)[0])
    session.step()
    session.cancel(third)
    while session.under_way:
        session.step()
    assert session.take(first).complete and not session.take(third).complete
    alone = draw(model, prepare(processor, "make it green", images=[picture()]), 2, num_inference_steps=3)
    torch.testing.assert_close(session.take(second).native, alone.native[0], rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="`guidance_scale` is 0, but must be above 0"):
        session.admit(prepare(processor, "blue"), None, {"guidance_scale": 0})


def test_bfloat16_keeps_its_state_in_float32():
    model, processor = new_hieraquery()
    model = model.to(torch.bfloat16)
    batch = prepare(processor, "make it green", images=[picture()]).to(dtype=torch.bfloat16)
    drawn = draw(model, batch, 1)
    assert drawn.native[0].dtype == drawn.pixels[0].dtype == torch.float32 and drawn.pixels[0].isfinite().all()


def test_reconstruct():
    model, processor = small()
    pixels = processor.to_pixels(picture(), 32, 32)
    assert torch.equal(model.reconstruct([pixels])[0], pixels)
    assert processor.pictures([pixels])[0].tobytes() == picture().tobytes()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"guidance_scale": 0}, "`guidance_scale` is 0, but must be above 0"),
        ({"guidance_scale": "high"}, "`guidance_scale` is 'high', but must be a number"),
        ({"num_inference_steps": 0}, "`num_inference_steps` is 0, but must be a whole number from 1 on"),
        ({"scales": "coarse"}, "`scales` is 'coarse', but must be 'finest' or 'all'"),
        ({"temperature": 1.0}, "HieraQuery has no drawing setting `temperature`; it has guidance_scale"),
        ({"scheduler": "ddim"}, "`scheduler` is a str, but HieraQuery draws by flow matching"),
        ({"scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)}, "has dynamic shifting"),
    ],
)
def test_settings_that_cannot_be(settings, words):
    model, processor = small()
    with pytest.raises(ValueError, match=words):
        model.draw(prepare(processor, "red"), **settings)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda batch: batch.pop("image_size"), "`image_size` was not given"),
        (lambda batch: batch.update(image_size=torch.tensor([[30, 32]])), "edges must be multiples of 4 pixels"),
        (
            lambda batch: batch.update(input_ids=batch["input_ids"][0]),
            r"`input_ids` are of shape .*, but must be \(B, T\)",
        ),
        (lambda batch: batch.update(attention_mask=torch.ones(1, 2)), "`attention_mask` is of shape"),
        (lambda batch: batch.update(attention_mask=batch["attention_mask"] * 0), "padded on the left"),
        (
            lambda batch: batch.update({n: batch[n].repeat(1, 30) for n in ("input_ids", "attention_mask")}),
            "need .* positions, but the model has 1024; shorten the prompt",
        ),
    ],
)
def test_tensors_that_cannot_be(change, words):
    model, processor = small()
    batch = dict(prepare(processor, "a red square"))
    change(batch)
    with pytest.raises(ValueError, match=words):
        model.draw(batch)


def test_a_scheduler_that_diffusers_has_not():
    model, processor = new_hieraquery(scheduler={"_class_name": "AutoencoderKL"})
    with pytest.raises(ValueError, match="The scheduler is a 'AutoencoderKL', but diffusers has no such scheduler"):
        model.draw(prepare(processor, "red"))
