"""Losses against plain formulas in float64."""

import math

import numpy as np
import pytest
import torch

from tiny_hieraquery import SD3, tiny_batch, tiny_model
from wallaroo_hf.hieraquery.alignment import resize_features
from wallaroo_hf.hieraquery.hiera_losses import alignment_loss, flow_loss, loss_names, noised, total_loss


def test_flow_loss_is_the_plain_formula():
    generator = np.random.default_rng(0)
    velocity, data, noise = generator.normal(size=(3, 2, 4, 3, 5))
    expected = (
        sum((v - (n - x)) ** 2 for v, x, n in zip(velocity.flat, data.flat, noise.flat, strict=True)) / data.size
    )
    tensors = [torch.tensor(one, dtype=torch.float32) for one in (velocity, data, noise)]
    assert float(flow_loss(*tensors)) == pytest.approx(expected, rel=1e-5)
    sigma = np.array([0.25, 0.75])
    mixed = noised(tensors[1], tensors[2], torch.tensor(sigma, dtype=torch.float32))
    share = sigma[:, None, None, None]
    np.testing.assert_allclose(mixed.numpy(), (1 - share) * data + share * noise, rtol=0, atol=1e-6)


def test_alignment_loss_is_the_plain_formula():
    one, other = np.random.default_rng(1).normal(size=(2, 2, 6, 8))
    cosines = [
        sum(a * b for a, b in zip(x, y, strict=True)) / math.sqrt(sum(a * a for a in x) * sum(b * b for b in y))
        for x, y in zip(one.reshape(-1, 8), other.reshape(-1, 8), strict=True)
    ]
    loss = alignment_loss(torch.tensor(one, dtype=torch.float32), torch.tensor(other, dtype=torch.float32))
    assert float(loss) == pytest.approx(-sum(cosines) / len(cosines), rel=1e-5)


def _weights(cells, wanted):
    """Rows of a triangle filter as wide as a wanted cell, or as a given one where that is wider."""
    ratio = cells / wanted
    support = max(ratio, 1.0)
    middles = (np.arange(wanted) + 0.5) * ratio
    weights = np.maximum(0, 1 - np.abs((np.arange(cells)[None] + 0.5 - middles[:, None]) / support))
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("grid", [(2, 3), (8, 12), (4, 6), (3, 5)])
def test_features_are_resized_by_the_plain_formula(grid):
    features = np.random.default_rng(2).normal(size=(4, 6, 5))
    expected = np.einsum("ar,bc,rcw->abw", _weights(4, grid[0]), _weights(6, grid[1]), features).reshape(-1, 5)
    resized = resize_features(torch.tensor(features), grid).numpy()
    np.testing.assert_allclose(resized, expected, rtol=0, atol=1e-5)


def test_total_is_the_mean_over_scales_that_are_drawn():
    losses = {
        name: torch.tensor(float(number)) for number, name in enumerate(loss_names(3, True), 1) if "1" not in name
    }
    assert list(losses) == ["flow_0", "flow_2", "alignment_0", "alignment_2"]
    assert float(total_loss(losses, [1, 0, 2], 0.5)) == pytest.approx((1 + 2 * 3 + 0.5 * 4 + 2 * 0.5 * 6) / 2)


@pytest.mark.parametrize("dit", [{}, {"dit": SD3}], ids=["sana", "sd3"])
def test_the_models_losses_are_those_of_what_it_computes(dit):
    model = tiny_model(**dit)
    targets = [torch.rand(3, 16, 16) * 2 - 1, torch.rand(3, 16, 16) * 2 - 1]
    noise, sigmas = [torch.randn(2, 3, 8, 8), torch.randn(2, 3, 16, 16)], [torch.rand(2), torch.rand(2)]
    with torch.no_grad():
        output = model(**tiny_batch(), targets=targets, noise=noise, sigmas=sigmas)
        conditions = model.conditions(**tiny_batch())
        for scale, condition in enumerate(conditions):
            data = torch.stack(targets).double()
            if scale == 0:
                data = data.view(2, 3, 8, 2, 8, 2).mean((3, 5))
            share = sigmas[scale].double().view(-1, 1, 1, 1)
            mixed = (1 - share) * data + share * noise[scale].double()
            velocity = model.dit_adapter.velocity(model.dit, mixed.float(), sigmas[scale], condition, (16, 16))
            expected = (velocity.double() - (noise[scale].double() - data)).square().mean()
            assert float(output.losses[f"flow_{scale}"]) == pytest.approx(float(expected), rel=1e-5)
    parts = {name: float(loss) for name, loss in output.losses.items()}
    assert tuple(parts) == loss_names(2, True)
    assert float(output.loss) == pytest.approx(
        (parts["flow_0"] + parts["flow_1"] + 0.5 * (parts["alignment_0"] + parts["alignment_1"])) / 2, rel=1e-5
    )
