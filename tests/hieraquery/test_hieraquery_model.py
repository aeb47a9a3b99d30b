"""The model: what is frozen, what depends on what, what survives saving."""

import copy

import pytest
import torch

from tiny_hieraquery import IMAGE_TOKEN, SANA, SD3, tiny_batch, tiny_model
from wallaroo_hf.hieraquery import HieraQueryForConditionalGeneration

TARGETS = [torch.linspace(-1, 1, 3 * 16 * 16).view(3, 16, 16), torch.linspace(1, -1, 3 * 16 * 16).view(3, 16, 16)]


def _fixed(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = [(8, 8), (16, 16)]
    noise = [torch.randn(2, 3, *size, generator=generator) for size in sizes]
    return {"noise": noise, "sigmas": [torch.rand(2, generator=generator) for _ in sizes]}


@pytest.mark.parametrize("dit", [SANA, SD3], ids=["sana", "sd3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
def test_round_trips_are_bit_equal(tmp_path, dit, dtype, tied):
    tiny_model(dit=dit, tied=tied).to(dtype).save_pretrained(tmp_path / "first")
    model = HieraQueryForConditionalGeneration.from_pretrained(tmp_path / "first", dtype=dtype)
    with torch.no_grad():
        before = model(**tiny_batch(), targets=TARGETS, **_fixed(model))
    model.save_pretrained(tmp_path)
    loaded, info = HieraQueryForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True, dtype=dtype)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    heads = loaded.mllm.lm_head.weight, loaded.mllm.model.language_model.embed_tokens.weight
    assert (heads[0].data_ptr() == heads[1].data_ptr()) is tied
    with torch.no_grad():
        after = loaded(**tiny_batch(), targets=TARGETS, **_fixed(loaded))
    assert after.loss.isfinite() and torch.equal(after.loss, before.loss)
    assert not any(parameter.requires_grad for parameter in loaded.mllm.parameters())


def test_a_batch_is_its_rows():
    model, batch = tiny_model(), tiny_batch()
    with torch.no_grad():
        together = model.conditions(**batch)
        for row, start in ((0, 0), (1, 2)):
            alone = model.conditions(batch["input_ids"][row : row + 1, start:])
            for one, both in zip(alone, together, strict=True):
                torch.testing.assert_close(one[0], both[row], rtol=0, atol=2e-5)


def test_coarse_scales_know_nothing_of_finer_ones():
    model, batch = tiny_model(), tiny_batch()
    with torch.no_grad():
        coarse, fine = model.conditions(**batch)
        model.queries.queries[1] += 1
        moved_coarse, moved_fine = model.conditions(**batch)
        assert torch.equal(moved_coarse, coarse) and not torch.allclose(moved_fine, fine)
        model.queries.queries[0] += 1
        assert not torch.allclose(model.conditions(**batch)[1], moved_fine)


def test_in_the_other_order_fine_scales_know_nothing_of_coarse_ones():
    model, batch = tiny_model(query_groups="fine_to_coarse"), tiny_batch()
    assert [len(queries) for queries in model.queries.queries] == [4, 1]  # as they stand
    with torch.no_grad():
        coarse, fine = model.conditions(**batch)
        torch.testing.assert_close(model.conditions(**batch, scales=[-1])[0], fine, rtol=0, atol=1e-6)
        model.queries.queries[1] += 1
        moved_coarse, moved_fine = model.conditions(**batch)
        assert torch.equal(moved_fine, fine) and not torch.allclose(moved_coarse, coarse)
        model.queries.queries[0] += 1
        assert not torch.allclose(model.conditions(**batch)[0], moved_coarse)


def test_one_group_may_serve_all_scales(tmp_path):
    scales = [{"query_grid": [2, 3], "factor": factor} for factor in (0.5, 1.0)]
    model, batch = tiny_model(query_groups="shared", scales=scales), tiny_batch()
    assert [len(queries) for queries in model.queries.queries] == model.config.num_queries == [6]
    with torch.no_grad():
        model.connector.scale_vectors.normal_()
        coarse, fine = model.conditions(**batch)
        assert coarse.shape == fine.shape == (2, 6, 24)
        vectors = model.connector.scale_vectors
        torch.testing.assert_close(coarse - vectors[0], fine - vectors[1], rtol=0, atol=1e-6)
    model.save_pretrained(tmp_path)
    loaded = HieraQueryForConditionalGeneration.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded.conditions(**batch)[1], fine)
    assert set(model(**batch, targets=[torch.zeros(3, 16, 16)] * 2).losses) >= {"flow_0", "flow_1"}


@pytest.mark.parametrize("condition", ["prefix", "all"])
def test_other_groups_may_condition_a_scale(condition):
    model, batch = tiny_model(condition=condition), tiny_batch()
    with torch.no_grad():
        coarse, fine = model.conditions(**batch)
    assert coarse.shape[1] == (1 if condition == "prefix" else 5) and fine.shape[1] == 5


def test_one_scale_is_what_all_of_them_give():
    model, batch = tiny_model(), tiny_batch()
    with torch.no_grad():
        coarse, fine = model.conditions(**batch)
        torch.testing.assert_close(model.conditions(**batch, scales=[-1])[0], fine, rtol=0, atol=0)
        torch.testing.assert_close(model.conditions(**batch, scales=[0])[0], coarse, rtol=0, atol=1e-6)


def test_the_connector_looks_both_ways():
    model = tiny_model()
    states = torch.randn(1, 4, 32)
    with torch.no_grad():
        before = model.connector(states, 1)
        states[0, 3] += 1
        assert not torch.allclose(model.connector(states, 1)[0, 0], before[0, 0])


def test_training_leaves_the_language_model_alone():
    model = tiny_model()
    frozen = {name: value.clone() for name, value in model.mllm.state_dict().items()}
    trained = {name: value.clone() for name, value in model.named_parameters() if value.requires_grad}
    model.train()
    model.requires_grad_(True)  # what loading does
    model.train()
    assert not model.mllm.training and not model.codec.training and model.dit.training
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.5)
    for step in range(2):
        model(**tiny_batch(), targets=TARGETS, **_fixed(model, step)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, value in model.mllm.state_dict().items():
        assert torch.equal(value, frozen[name]), name
    for name, value in model.named_parameters():
        assert name not in trained or not torch.equal(value, trained[name]), name


@pytest.mark.parametrize("dit", [SANA, SD3], ids=["sana", "sd3"])
def test_gradients_reach_all_that_is_trained(dit):
    model = tiny_model(dit=dit)
    model(**tiny_batch(), targets=TARGETS, **_fixed(model)).loss.backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert name.startswith("mllm.") and parameter.grad is None, name
        # a bias of keys moves all scores alike; nobody asks for what the last block's context would become
        elif not name.endswith(("k_proj.bias", "to_k.bias")) and "blocks.1.attn.add_q" not in name:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("dit", [SANA, SD3], ids=["sana", "sd3"])
def test_checkpointed_activations_give_the_same_gradients(dit):
    found = []
    for checkpointed in (False, True):
        model = tiny_model(dit=dit, condition_dropout=0.0).train()
        if checkpointed:
            model.activation_checkpointing_enable()
            assert model.dit.gradient_checkpointing
        output = model(**tiny_batch(), targets=TARGETS, **_fixed(model))
        output.loss.backward()
        found.append({name: parameter.grad for name, parameter in model.named_parameters()} | output.losses)
    for name, value in found[0].items():
        other = found[1][name]
        assert (value is None) == (other is None), name
        assert value is None or torch.allclose(value, other, rtol=1e-5, atol=1e-7), name


def test_prompt_then_queries_is_one_whole_pass():
    model, batch = tiny_model(), tiny_batch()
    whole = copy.deepcopy(model)
    ids = batch["input_ids"][:1]
    (fine,) = model.conditions(ids, scales=[-1])
    words = whole.mllm.get_input_embeddings()(ids)
    embeddings = torch.cat([words, whole.queries([(16, 16)], 2)], dim=1)
    positions = torch.arange(embeddings.shape[1]).expand(3, 1, -1)
    states = whole.mllm.model.language_model(inputs_embeds=embeddings, position_ids=positions).last_hidden_state
    expected = whole.connector(states[:, -5:-1], 1)
    torch.testing.assert_close(fine, expected, rtol=0, atol=1e-5)
    fine.square().sum().backward()
    expected.square().sum().backward()
    for one, other in zip(model.queries.parameters(), whole.queries.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_a_picture_in_the_prompt_matters():
    model = tiny_model()
    ids = torch.tensor([[3, 62, *[IMAGE_TOKEN] * 4, 63, 5]])
    grid = torch.tensor([[1, 4, 4]])
    arguments = {"input_ids": ids, "image_grid_thw": grid, "scales": [-1]}
    with torch.no_grad():
        one = model.conditions(pixel_values=torch.zeros(16, 96), **arguments)[0]
        other = model.conditions(pixel_values=torch.ones(16, 96), **arguments)[0]
    assert one.shape == (1, 4, 24) and not torch.allclose(one, other)


def test_several_noise_draws_are_their_mean():
    model = tiny_model()
    first, second = _fixed(model, 1), _fixed(model, 2)
    both = {name: [torch.cat(pair) for pair in zip(first[name], second[name], strict=True)] for name in first}
    with torch.no_grad():
        losses = [model(**tiny_batch(), targets=TARGETS, **drawn).loss for drawn in (first, second)]
        loss = model(**tiny_batch(), targets=TARGETS, noise_draws=2, **both).loss
    torch.testing.assert_close(loss, sum(losses) / 2, rtol=0, atol=1e-5)


def test_what_does_not_fit_is_one_sentence():
    with pytest.raises(
        ValueError, match="The image codec has 3 latent channels, but the diffusion transformer takes 5"
    ):
        tiny_model(dit={**SANA, "in_channels": 5})
    model = tiny_model()
    with pytest.raises(ValueError, match=r"A picture of 20x16 .* does not fit scale 0, whose factor is 0.5"):
        model(**tiny_batch(), targets=[torch.zeros(3, 20, 16)] * 2)
    with pytest.raises(ValueError, match="There are 1 targets for 2 rows"):
        model(**tiny_batch(), targets=TARGETS[:1])
