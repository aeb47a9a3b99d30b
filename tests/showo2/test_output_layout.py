"""Which latents a token of the flow head speaks of: the next ones in raster order, as released, or its own patch."""

import pytest
import torch
from torch.nn import functional as F

from small_showo2 import new_showo2
from wallaroo_hf.showo2 import ShowO2Config
from wallaroo_hf.showo2.flow_head import pack_latents, read_velocity


def _config(**changes):
    return ShowO2Config(codec_config={"type": "linear"}, **changes)


@pytest.mark.parametrize("size", [(4, 6), (3, 4, 6)])
def test_patches_are_those_that_are_seen(size):
    latents = torch.randn(16, *size)
    frames = latents[None] if len(size) == 2 else latents.transpose(0, 1)
    tokens = F.pixel_unshuffle(frames, 2).flatten(2).transpose(1, 2).flatten(0, 1)  # as the convolutions read them
    assert torch.equal(read_velocity(tokens, size, _config(output_layout="patches")), latents)


def test_raster_is_the_default():
    latents = torch.randn(16, 4, 6)
    assert torch.equal(read_velocity(pack_latents(latents, 4), (4, 6), _config()), latents)
    with pytest.raises(ValueError, match="`output_layout` is 'rows', but must be 'raster' or 'patches'"):
        _config(output_layout="rows")


@pytest.mark.parametrize("layout", ["raster", "patches"])
def test_drawing_and_training_have_one_layout(layout):
    model, processor = new_showo2()
    for config in (model.config, model.model.config):
        config.output_layout = layout
    inputs = processor(text="red", generation_mode="image", height=32, width=64, return_tensors="pt")
    noise = torch.randn(16, 4, 8)
    settings = {"num_inference_steps": 1, "guidance_scale": 1.0, "generation_mode": "image"}
    drawn = model.generate(**inputs, noise=[noise], **settings)[0]
    image = [model.config.image_token_id] * 9
    ids = torch.cat([inputs["input_ids"], torch.tensor([image])], dim=1)
    with torch.no_grad():
        velocity = model(input_ids=ids, image_latents=[noise], timesteps=[0.0]).velocities[0]
    torch.testing.assert_close(drawn, noise + velocity, rtol=0, atol=1e-5)
