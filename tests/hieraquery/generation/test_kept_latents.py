"""Inpainting by HieraQuery: what stays is the source's own, at every scale, by every scheduler, alone and in batches."""

from __future__ import annotations

import functools

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler
from PIL import Image

from small_hieraquery import new_hieraquery, picture
from tiny_hieraquery import SD3
from wallaroo_hf import DrawingPipeline
from wallaroo_hf.hieraquery.scale_sizes import at_size

PARTS: dict = {"sana": {}, "sd3": {"dit": {**SD3, "pos_embed_max_size": 10}}}
DPM = {
    "_class_name": "DPMSolverMultistepScheduler",
    **{"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0},
}


@functools.cache
def small(name="sana"):
    return new_hieraquery(**PARTS[name])


def white(*box, size=(32, 32)):
    mask = Image.new("L", size, 0)
    mask.paste(255, box)
    return mask


RIGHT = white(17, 0, 32, 32)  # cells have 4 pixels: what is painted begins at 16


def prepare(processor, *masks, source=None, **options):
    source = picture() if source is None else source
    words = ["make it green", "a red square above a blue circle", "blue"][: len(masks)]
    images = [source] * len(masks)
    options = {"height": 32, "width": 32, "source_fit": "pad", **options}
    options |= {} if all(mask is None for mask in masks) else {"mask_images": list(masks)}
    return processor(text=words, images=images, generation_mode="image", return_tensors="pt", **options)


def draw(model, batch, *numbers, **settings):
    generators = [torch.Generator().manual_seed(number) for number in numbers]
    return model.draw(batch, generators=generators, **{"num_inference_steps": 4, "guidance_scale": 3.0, **settings})


def seen(model, batch, row=0):
    return model.codec.encode_images(batch["source_pixel_values"][row][None]).mean[0]


@pytest.mark.parametrize("name", ["sana", "sd3"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_what_stays_is_the_sources(name, guidance):
    model, processor = small(name)
    batch = prepare(processor, RIGHT)
    assert batch["repaint_mask"][0].tolist() == [[False] * 4 + [True] * 4] * 8
    drawn = draw(model, batch, 1, guidance_scale=guidance).native[0]
    source = seen(model, batch)
    assert torch.equal(drawn[:, :, :16], source[:, :, :16])
    assert (drawn[:, :, 16:] - source[:, :, 16:]).abs().min(dim=0).values.max() > 0.01
    plain = draw(model, prepare(processor, None), 1, guidance_scale=guidance).native[0]
    assert not torch.equal(drawn[:, :, 16:], plain[:, :, 16:])  # what is painted sees what stays


def test_the_blending_is_the_usual_one():
    """The steps of diffusers' Stable Diffusion 3 inpainting, written out."""
    model, processor = small()
    batch = prepare(processor, RIGHT)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    drawn = draw(model, batch, 7, scheduler=scheduler, guidance_scale=1.0).native[0]
    scheduler.set_timesteps(4)
    read = {
        name: value
        for name, value in batch.items()
        if name not in ("image_size", "repaint_mask", "source_pixel_values")
    }
    with torch.no_grad():
        condition = model.conditions(**read, scales=[-1], sizes=[(32, 32)])[0]
        noise = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(7))
        latents, source = noise, seen(model, batch)[None]
        inside = torch.zeros(1, 1, 32, 32)
        inside[..., 16:] = 1
        for index, timestep in enumerate(scheduler.timesteps):
            sigma = (timestep / 1000).expand(1)
            velocity = model.dit_adapter.velocity(model.dit, latents, sigma, condition, None).float()
            latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
            kept = source
            if index + 1 < 4:
                kept = scheduler.scale_noise(source, scheduler.timesteps[index + 1 : index + 2], noise)
            latents = (1 - inside) * kept + inside * latents
    torch.testing.assert_close(drawn, latents[0], rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # diffusers with a new numpy
@pytest.mark.parametrize("scheduler", [DPM, "heun"])
def test_other_schedulers(scheduler):
    model, processor = new_hieraquery(**({} if scheduler == "heun" else {"scheduler": scheduler}))
    own = {"scheduler": FlowMatchHeunDiscreteScheduler()} if scheduler == "heun" else {}
    batch = prepare(processor, RIGHT)
    drawn = draw(model, batch, 1, **own).native[0]
    assert torch.equal(drawn[:, :, :16], seen(model, batch)[:, :, :16]) and drawn.isfinite().all()


def test_all_scales():
    model, processor = small()
    batch = prepare(processor, RIGHT)
    coarse, fine = draw(model, batch, 1, scales="all").native[0]
    assert torch.equal(fine, draw(model, batch, 1).native[0])
    reduced = model.codec.encode_images(at_size(batch["source_pixel_values"][0][None], (16, 16))).mean[0]
    assert torch.equal(coarse[:, :, :8], reduced[:, :, :8]) and not torch.equal(coarse[:, :, 8:], reduced[:, :, 8:])


def test_batches_copies_and_previews():
    model, processor = small()
    model = model.double()  # weights are so large here that rounding would hide what one row does to another
    left = white(0, 0, 3, 32)
    try:
        together = draw(model, prepare(processor, RIGHT, None, left), 1, 2, 3)
        for row, mask in enumerate((RIGHT, None, left)):
            alone = processor(
                text=["make it green", "a red square above a blue circle", "blue"][row],
                **{"images": picture(), "generation_mode": "image", "return_tensors": "pt", "height": 32, "width": 32},
                **{"mask_images": mask, "source_fit": "pad"},
            )
            torch.testing.assert_close(together.native[row], draw(model, alone, row + 1).native[0])
        batch, previews = prepare(processor, RIGHT), []
        copies = draw(model, batch, 1, 2, copies=2, follow=lambda step: previews.append(step.preview()))
        source = seen(model, batch)
        assert all(torch.equal(one[:, :, :16], source[:, :, :16]) for one in copies.native)
        assert not torch.equal(*copies.native) and len(previews) == 8
        shown = model.decode_latents(source)[:, :, :16]
        assert all(torch.equal(preview[:, :, :16], shown) for preview in previews)
    finally:
        model.float()


def test_sessions_take_rows_with_and_without_masks():
    model, processor = small()
    rows = [prepare(processor, None), prepare(processor, RIGHT)]
    session = model.session(2, num_inference_steps=3)
    numbers = [session.admit(row, torch.Generator().manual_seed(seed)) for seed, row in enumerate(rows)]
    while not all(session.is_over(number) for number in numbers):
        session.step()
    plain, kept = (session.take(number).native for number in numbers)
    source = seen(model, rows[1])
    assert torch.equal(kept[:, :, :16], source[:, :, :16]) and not torch.equal(plain[:, :, :16], source[:, :, :16])


def test_the_pipeline_keeps_the_pixels():
    model, processor = small()
    pipe = DrawingPipeline(model=model, processor=processor, device="cpu", task="image-editing")
    source, settings = picture(size=(50, 30)), {"num_inference_steps": 3}
    mask = white(0, 0, 20, 30, size=(50, 30))
    edited = pipe("make it green", image=source, mask_image=mask, **settings).images[0]
    assert edited.size == (50, 30) and edited.crop((20, 0, 50, 30)) == source.crop((20, 0, 50, 30))
    assert edited.crop((0, 0, 20, 30)) != source.crop((0, 0, 20, 30))
    grown = pipe("make it green", image=source, outpaint={"right": 14}, **settings).images[0]
    assert grown.size == (64, 30) and grown.crop((0, 0, 50, 30)) == source


def test_masks_that_cannot_be():
    model, processor = small()
    with pytest.raises(ValueError, match="has no image to edit"):
        processor(text="blue", mask_images=RIGHT, generation_mode="image", return_tensors="pt")
    with pytest.raises(ValueError, match="`mask_images` is for drawing"):
        processor(text="blue", mask_images=RIGHT, return_tensors="pt")
    batch = prepare(processor, RIGHT)
    with pytest.raises(ValueError, match="`repaint_mask` and `source_pixel_values` have 2 and 1 entries"):
        draw(model, {**batch, "repaint_mask": batch["repaint_mask"] * 2}, 1)
    with pytest.raises(ValueError, match="its source is missing; pass the processor's tensors unchanged"):
        draw(model, {**batch, "source_pixel_values": [None]}, 1)
    with pytest.raises(ValueError, match="the shape"):
        draw(model, {**batch, "repaint_mask": [batch["repaint_mask"][0][:3]]}, 1)
