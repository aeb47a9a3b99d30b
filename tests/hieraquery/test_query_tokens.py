"""Where queries stand in the picture and in the language model, and what conditions a scale."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tiny_hieraquery import tiny_batch, tiny_config, tiny_model
from wallaroo_hf.hieraquery.query_tokens import HieraQueryTokens, grid_encoding

THREE = [
    {"query_grid": [1, 2], "factor": 0.25},
    {"query_grid": [2, 2], "factor": 0.5},
    {"query_grid": [3, 2], "factor": 1.0},
]


def plain(grid, size, width):
    """By the formula, number by number, in float64."""
    quarter = width // 4
    table = np.zeros((grid[0] * grid[1], width))
    for row in range(grid[0]):
        for column in range(grid[1]):
            places = [(row + 0.5) / grid[0] * size[0], (column + 0.5) / grid[1] * size[1]]
            for axis, place in enumerate(places):
                for number in range(quarter):
                    angle = 16 * place / max(size) / 10000 ** (number / quarter)
                    table[row * grid[1] + column, 2 * axis * quarter + number] = math.sin(angle)
                    table[row * grid[1] + column, (2 * axis + 1) * quarter + number] = math.cos(angle)
    return table


@pytest.mark.parametrize(
    ("grid", "size", "width"), [((4, 4), (64, 64), 16), ((2, 3), (32, 96), 20), ((3, 1), (9, 3), 14)]
)
def test_places_are_those_of_the_plain_formula(grid, size, width):
    found = grid_encoding(grid, size, width)
    np.testing.assert_allclose(found.double().numpy(), plain(grid, size, width), rtol=0, atol=1e-6)
    assert not found[:, width // 4 * 4 :].any()  # nothing is said by what is left over


def test_places_tell_the_shape_of_the_picture_and_are_shared_by_scales():
    assert torch.equal(
        grid_encoding((4, 4), (64, 128), 16), grid_encoding((4, 4), (32, 64), 16)
    )  # only the ratio counts
    assert not torch.allclose(grid_encoding((4, 4), (64, 128), 16), grid_encoding((4, 4), (64, 64), 16))
    coarse, fine = grid_encoding((1, 1), (64, 64), 16)[0], grid_encoding((3, 3), (64, 64), 16)
    torch.testing.assert_close(coarse, fine[4])  # the middle of the picture


def test_embeddings_are_queries_and_places_between_boundaries():
    config = tiny_config(scales=THREE, query_std=0.3)
    torch.manual_seed(0)
    tokens = HieraQueryTokens(config)
    rows = tokens([(16, 16), (16, 8)], 3)
    assert rows.shape == (2, 2 + 4 + 6 + 2 * 3, 32)
    spans = tokens.spans(3)
    assert [(span.start, span.stop) for span in spans] == [(1, 3), (5, 9), (11, 17)]
    for number, span in enumerate(spans):
        for row, size in ((0, (16, 16)), (1, (16, 8))):
            places = math.sqrt(2) * 0.3 * torch.from_numpy(plain(tokens.grids[number], size, 32)).float()
            torch.testing.assert_close(rows[row, span], tokens.queries[number] + places, rtol=0, atol=1e-6)
            assert torch.equal(rows[row, span.start - 1], tokens.boundaries[number, 0])
            assert torch.equal(rows[row, span.stop], tokens.boundaries[number, 1])
    torch.testing.assert_close(tokens([(16, 16)], 2)[0], rows[0, :10])
    assert float(torch.cat(list(tokens.queries)).detach().std()) == pytest.approx(0.3, rel=0.2)


def test_positions_go_on_as_text():
    tokens = HieraQueryTokens(tiny_config(scales=THREE))
    positions = tokens.positions(torch.tensor([5, 9]), 3)
    assert torch.equal(positions, torch.stack([torch.arange(5, 23), torch.arange(9, 27)]).expand(3, 2, 18))


def test_positions_on_the_grid():
    tokens = HieraQueryTokens(tiny_config(scales=THREE, query_positions="grid"))
    positions = tokens.positions(torch.tensor([5]), 3)[:, 0].T.tolist()
    first = [[5] * 3, [6, 6, 6], [6, 6, 7], [8] * 3]  # time, row, column; END behind the longer edge
    second = [[9] * 3, [10, 10, 10], [10, 10, 11], [10, 11, 10], [10, 11, 11], [12] * 3]
    third = [[13] * 3, *([14, 14 + row, 14 + column] for row in range(3) for column in range(2)), [17] * 3]
    assert positions == first + second + third


def test_a_model_on_the_grid_is_another_and_pads_as_any():
    batch = tiny_batch()
    models = {places: tiny_model(scales=THREE, query_positions=places, size=[16, 16]) for places in ("text", "grid")}
    with torch.no_grad():
        text, grid = (model.conditions(**batch) for model in models.values())
        alone = models["grid"].conditions(batch["input_ids"][1:, 2:])
    assert not any(torch.allclose(one, other) for one, other in zip(text, grid, strict=True))
    for one, both in zip(alone, grid, strict=True):
        torch.testing.assert_close(one[0], both[1], rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("condition", "lengths", "moved"),
    [
        # by the number of a group of queries that is moved: the scales whose condition that changes
        ("own", [2, 4, 6], {0: [0, 1, 2], 1: [1, 2], 2: [2]}),
        ("prefix", [2, 6, 12], {0: [0, 1, 2], 1: [1, 2], 2: [2]}),
        ("all", [12, 12, 12], {0: [0, 1, 2], 1: [0, 1, 2], 2: [0, 1, 2]}),
    ],
)
def test_what_conditions_a_scale(condition, lengths, moved):
    model, batch = tiny_model(scales=THREE, condition=condition), tiny_batch()
    with torch.no_grad():
        before = model.conditions(**batch)
        assert [one.shape for one in before] == [(2, length, 24) for length in lengths]
        for scale in range(3):
            torch.testing.assert_close(model.conditions(**batch, scales=[scale])[0], before[scale], rtol=0, atol=1e-6)
        for group, changed in moved.items():
            own = model.queries.queries[group].clone()
            model.queries.queries[group] += 1
            after = model.conditions(**batch)
            assert [k for k in range(3) if not torch.equal(after[k], before[k])] == changed
            model.queries.queries[group].copy_(own)


@pytest.mark.parametrize("condition", ["own", "prefix", "all"])
def test_every_condition_trains_and_draws(condition):
    model = tiny_model(scales=THREE, condition=condition)
    targets = [torch.linspace(-1, 1, 3 * 16 * 16).view(3, 16, 16)] * 2
    model(**tiny_batch(), targets=targets).loss.backward()
    assert all(one.grad is not None and one.grad.abs().max() > 0 for one in model.queries.parameters())
    batch = {**tiny_batch(), "image_size": torch.tensor([[16, 16], [16, 8]])}
    with pytest.raises(ValueError, match="16x8"):
        model.draw(batch, num_inference_steps=2, scales="all")  # a quarter of 8 is half a patch
    batch["image_size"][1] = 16
    drawn = model.draw(batch, num_inference_steps=2, scales="all", generators=torch.Generator().manual_seed(1))
    assert [[tuple(one.shape) for one in image] for image in drawn.native] == [[(3, 4, 4), (3, 8, 8), (3, 16, 16)]] * 2


def test_a_scale_of_no_weight_stands_there_and_is_not_drawn():
    scales = [{**THREE[0], "loss_weight": 0}, {**THREE[1], "loss_weight": 2.0}, THREE[2]]
    model = tiny_model(scales=scales)
    targets = [torch.linspace(-1, 1, 3 * 16 * 16).view(3, 16, 16)] * 2
    sizes = (4, 8, 16)
    fixed = {"noise": [torch.randn(2, 3, edge, edge) for edge in sizes], "sigmas": [torch.rand(2) for _ in sizes]}
    output = model(**tiny_batch(), targets=targets, **fixed)
    assert set(output.losses) == {"flow_1", "flow_2", "alignment_1", "alignment_2"}
    parts = {name: float(loss.detach()) for name, loss in output.losses.items()}
    expected = 2 * (parts["flow_1"] + 0.5 * parts["alignment_1"]) + parts["flow_2"] + 0.5 * parts["alignment_2"]
    assert float(output.loss.detach()) == pytest.approx(expected / 2, rel=1e-5)
    weighted = tiny_model(scales=[{**one, "loss_weight": 1.0} for one in scales])
    both = weighted(**tiny_batch(), targets=targets, **fixed).losses
    for name, loss in output.losses.items():
        torch.testing.assert_close(both[name], loss, rtol=0, atol=1e-6)  # of the others nothing changes
    output.loss.backward()
    assert model.queries.queries[0].grad.abs().max() > 0  # finer ones see it
    assert not model.connector.scale_vectors.grad[0].any() and model.connector.scale_vectors.grad[1:].all(dim=1).any()
