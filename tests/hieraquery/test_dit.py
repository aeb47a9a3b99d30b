"""Diffusion transformers behind one interface."""

import copy
import threading

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
    seen = []
    dit.pos_embed.proj.register_forward_hook(lambda _m, _a, output: torch.zeros_like(output))
    dit.pos_embed.register_forward_hook(lambda _m, _a, output: seen.append(output[0]))  # behind that of `build`
    with torch.no_grad():
        for size, finest in ((8, (8, 8)), (4, (8, 8)), (4, None)):
            adapter.velocity(dit, torch.zeros(1, 4, size, size), torch.zeros(1), torch.zeros(1, 1, 24), finest)
        own, spread, middle = seen[0].view(4, 4, 16), seen[1].view(2, 2, 16), seen[2].view(2, 2, 16)
    torch.testing.assert_close(middle, own[1:3, 1:3], rtol=0, atol=0)  # diffusers' own
    for row in range(2):
        for column in range(2):  # the middle of what its 2x2 cells have
            cells = own[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            torch.testing.assert_close(spread[row, column], cells.mean((0, 1)), rtol=0, atol=1e-6)


def _pass(adapter, dit, edge, layer, barrier=None):
    """Velocity of a coarse grid and states of a block, for a seed of its own."""
    generator = torch.Generator().manual_seed(edge + layer)
    latents, condition = (torch.randn(1, *shape, generator=generator) for shape in ((4, edge, edge), (5, 24)))
    with torch.no_grad(), adapter.tap(dit, layer) as tap:
        if barrier is not None:
            barrier.wait()  # both have told what they want
        velocity = adapter.velocity(dit, latents, torch.full((1,), 0.5), condition, (8, 8))
        if barrier is not None:
            barrier.wait()  # both have computed
    return velocity, tap.hidden_states


@pytest.mark.parametrize("settings", [SANA, SD3], ids=["sana", "sd3"])
def test_two_threads_share_a_transformer(settings):
    adapter = find_dit(settings)
    torch.manual_seed(0)
    dit = adapter.build().eval()
    wanted = [(4, 0), (8, 1), (2, 2), (4, 1)]
    expected = {one: _pass(adapter, dit, *one) for one in wanted}
    found, barrier = {}, threading.Barrier(len(wanted), timeout=60)

    def work(one):
        found[one] = _pass(adapter, dit, *one, barrier)

    threads = [threading.Thread(target=work, args=(one,)) for one in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in wanted:
        for own, alone in zip(found[one], expected[one], strict=True):
            torch.testing.assert_close(own, alone, rtol=0, atol=0)


@pytest.mark.parametrize("settings", [SANA, SD3], ids=["sana", "sd3"])
def test_nothing_is_put_on_a_transformer_while_it_computes(settings):
    adapter = find_dit(settings)
    dit = adapter.build()
    hooks = [dict(module._forward_hooks) for module in dit.modules()]
    seen = []
    dit.norm_out.register_forward_pre_hook(
        lambda _m, _a: seen.append([dict(module._forward_hooks) for module in dit.modules()])
    )
    _pass(adapter, dit, 4, 1)
    assert seen == [hooks] and copy.deepcopy(dit).state_dict().keys() == dit.state_dict().keys()


@pytest.mark.parametrize("settings", [SANA, SD3], ids=["sana", "sd3"])
def test_checkpointed_activations_have_the_same_gradients(settings):
    adapter = find_dit(settings)
    torch.manual_seed(0)
    dit = adapter.build()
    latents, condition = torch.randn(1, 4, 4, 4), torch.randn(1, 5, 24)
    found = []
    for checkpointed in (False, True):
        if checkpointed:
            dit.enable_gradient_checkpointing()
        with adapter.tap(dit, 1) as tap:
            velocity = adapter.velocity(dit, latents, torch.full((1,), 0.5), condition, (8, 8))
        kept = tap.hidden_states
        (velocity.square().sum() + kept.square().sum()).backward()
        assert tap.hidden_states is kept  # computing it again gives it to nobody
        found.append({name: parameter.grad for name, parameter in dit.named_parameters()})
        dit.zero_grad()
    for name, gradient in found[0].items():
        other = found[1][name]
        assert (gradient is None) == (other is None) and (gradient is None or torch.allclose(other, gradient)), name


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
