"""Diffusion transformers behind one interface."""

import pytest
import torch

from wallaroo_hf.hieraquery.dit import find_dit

SANA = {
    "_class_name": "SanaTransformer2DModel",
    **{"in_channels": 4, "out_channels": 4, "num_layers": 3, "num_attention_heads": 2, "attention_head_dim": 8},
    **{"num_cross_attention_heads": 2, "cross_attention_head_dim": 8, "cross_attention_dim": 16},
    **{"caption_channels": 24, "sample_size": 8, "patch_size": 1, "interpolation_scale": 1},
}
SD3 = {
    "_class_name": "SD3Transformer2DModel",
    **{"in_channels": 4, "out_channels": 4, "num_layers": 3, "num_attention_heads": 2, "attention_head_dim": 8},
    **{"joint_attention_dim": 24, "caption_projection_dim": 16, "pooled_projection_dim": 12},
    **{"sample_size": 8, "patch_size": 2, "pos_embed_max_size": 8},
}


@pytest.mark.parametrize("settings", [SANA, SD3], ids=["sana", "sd3"])
def test_velocity_is_the_transformers_own(settings):
    adapter = find_dit(settings)
    torch.manual_seed(0)
    dit = adapter.build().eval()
    latents, condition, sigma = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 24), torch.tensor([0.25, 0.9])
    extra = {"pooled_projections": adapter.pooled(condition)} if settings is SD3 else {}
    with torch.no_grad(), adapter.tap(dit, 1) as tap:
        velocity = adapter.velocity(dit, latents, sigma, condition)
        expected = dit(latents, encoder_hidden_states=condition, timestep=sigma * 1000, **extra).sample
    torch.testing.assert_close(velocity, expected, rtol=0, atol=0)
    assert tap.hidden_states.shape == (2, (8 // adapter.patch_size) ** 2, adapter.hidden_size)
    assert (adapter.condition_size, adapter.latent_channels) == (24, 4)
    with pytest.raises(ValueError, match="no block 3; give one from 0 to 2"), adapter.tap(dit, 3):
        pass


@pytest.mark.parametrize("settings", [SANA, SD3], ids=["sana", "sd3"])
def test_buffers_that_no_file_has_are_made_anew(settings):
    adapter = find_dit(settings)
    dit = adapter.build()
    names = dict(dit.named_buffers()).keys() - dit.state_dict().keys()
    expected = {name: dit.get_buffer(name).clone() for name in names}
    assert bool(names) == (settings is SANA)
    for name in names:
        dit.get_buffer(name).fill_(torch.nan)
    adapter.rebuild_buffers(dit)
    for name in names:
        torch.testing.assert_close(dit.get_buffer(name), expected[name], rtol=0, atol=0)
    assert dict(dit.named_buffers()).keys() - dit.state_dict().keys() == names  # still in no file


def test_coarse_grids_of_sd3_spread_over_the_picture():
    adapter = find_dit(SD3)
    dit = adapter.build().eval()
    with torch.no_grad():
        seen = {}
        hook = dit.pos_embed.proj.register_forward_hook(lambda _m, _a, output: torch.zeros_like(output))
        positions = dit.pos_embed.register_forward_hook(lambda _m, _a, output: seen.setdefault("own", output))
        arguments = (torch.zeros(1, 4, 8, 8), torch.zeros(1), torch.zeros(1, 1, 24))
        adapter.velocity(dit, *arguments)
        own = seen["own"].view(4, 4, 16)
        positions.remove()
        coarse = torch.zeros(1, 4, 4, 4)
        with adapter._positions(dit, (4, 4), (8, 8)):
            spread = dit.pos_embed(coarse).view(2, 2, 16)
        hook.remove()
    for row in range(2):
        for column in range(2):  # the middle of what its 2x2 cells have
            cells = own[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            torch.testing.assert_close(spread[row, column], cells.mean((0, 1)), rtol=0, atol=1e-6)


def test_bfloat16_latents_in_float32_are_cast():
    for settings in (SANA, SD3):
        adapter = find_dit(settings)
        dit = adapter.build().to(torch.bfloat16)
        velocity = adapter.velocity(dit, torch.randn(1, 4, 8, 8), torch.ones(1), torch.randn(1, 2, 24))
        assert velocity.dtype == torch.bfloat16 and velocity.isfinite().all()


def test_other_transformers_are_refused():
    with pytest.raises(ValueError, match="is a 'FluxTransformer2DModel', but this needs a SanaTransformer2DModel or"):
        find_dit({"_class_name": "FluxTransformer2DModel"})
    with pytest.raises(ValueError, match="has no setting `layers`; remove it"):
        find_dit({**SANA, "layers": 3})
