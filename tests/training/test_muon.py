"""Muon in float32: torch's steps without bfloat16's rounding, torch's states, and the choice between both."""

import copy

import pytest
import torch
from torch import nn

from wallaroo_hf.training import muon
from wallaroo_hf.training.muon import Float32Muon, computes_in_bf16, new_muon

SHAPES = [(12, 12), (6, 12), (24, 12)]


def _matrices(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def _steps(optimizer, matrices, count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for matrix in matrices:
            matrix.grad = torch.randn(matrix.shape, generator=generator)
        optimizer.step()


def _torchs(matrices, weight_decay=0.1):
    return torch.optim.Muon(matrices, lr=0.01, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")


def test_steps_are_torchs_up_to_the_rounding():
    ours, theirs, before = _matrices(), _matrices(), _matrices()
    _steps(Float32Muon(ours, 0.01, 0.1), ours, 5)
    _steps(_torchs(theirs), theirs, 5)
    for one, other, start in zip(ours, theirs, before, strict=True):
        moved = (other - start).norm()
        assert moved > 0.05
        assert (one - other).norm() < 0.02 * moved


def test_the_iteration_makes_singular_values_alike():
    matrix = nn.Parameter(torch.zeros(16, 8))
    matrix.grad = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    Float32Muon([matrix], lr=1.0).step()
    values = torch.linalg.svdvals(matrix.detach() / (0.2 * 16**0.5))
    assert values.min() > 0.5 and values.max() < 1.5


def test_states_are_exchanged_with_torchs():
    theirs = _matrices()
    first = _torchs(theirs)
    _steps(first, theirs, 2)
    ours = [nn.Parameter(matrix.detach().clone()) for matrix in theirs]
    second = Float32Muon(ours, 0.01, 0.1)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    before = [matrix.detach().clone() for matrix in ours]
    _steps(first, theirs, 1, seed=2)
    _steps(second, ours, 1, seed=2)
    for one, other, start in zip(ours, theirs, before, strict=True):
        assert (one - other).norm() < 0.02 * (other - start).norm()


def test_matrices_without_a_gradient_stay():
    matrix = nn.Parameter(torch.ones(4, 4))
    Float32Muon([matrix], lr=1.0, weight_decay=0.5).step()
    assert torch.equal(matrix, torch.ones(4, 4))


@pytest.mark.parametrize("fast", [True, False])
def test_the_processor_decides(monkeypatch, fast):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": fast})
    assert computes_in_bf16(torch.device("cpu")) is fast
    assert computes_in_bf16(torch.device("cuda"))
    chosen = new_muon(_matrices(), 0.01)
    assert isinstance(chosen, muon.Float32Muon) is not fast
    assert chosen.param_groups[0]["adjust_lr_fn"] == "match_rms_adamw"
