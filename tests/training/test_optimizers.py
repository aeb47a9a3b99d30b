"""The joined optimizer: each part trains its parameters, schedules reach both, a resumed run is the uninterrupted one."""

import copy

import pytest
import torch
from torch import nn

from wallaroo_hf.training.muon import new_muon
from wallaroo_hf.training.optimizers import MuonAdamW


def _model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def _step(model, optimizer, seed):
    torch.manual_seed(seed)
    optimizer.zero_grad()
    model(torch.randn(5, 4)).square().mean().backward()
    optimizer.step()


def test_steps_are_those_of_the_two_optimizers():
    ours, theirs = _model(), _model()
    joined = MuonAdamW(ours.named_parameters(), lr=0.1)
    matrices = [p for p in theirs.parameters() if p.ndim == 2]
    parts = [
        new_muon(matrices, 0.1),
        torch.optim.AdamW(
            [p for p in theirs.parameters() if p.ndim == 1], lr=0.1, betas=(0.9, 0.95), weight_decay=0.0
        ),
    ]
    for seed in range(3):
        _step(ours, joined, seed)
        torch.manual_seed(seed)
        theirs.zero_grad()
        theirs(torch.randn(5, 4)).square().mean().backward()
        for part in parts:
            part.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_schedule_reaches_both_parts_and_survives_loading():
    model = _model()
    optimizer = MuonAdamW(model.named_parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    _step(model, optimizer, 0)
    scheduler.step()
    assert {group["lr"] for part in optimizer._parts.values() for group in part.param_groups} == {0.05}
    other_model = copy.deepcopy(model)
    other = MuonAdamW(other_model.named_parameters(), lr=0.1)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert {group["lr"] for group in other.param_groups} == {0.05}
    _step(model, optimizer, 1)
    _step(other_model, other, 1)
    for one, same in zip(model.parameters(), other_model.parameters(), strict=True):
        assert torch.equal(one, same)


def test_tables_and_output_layers_are_adamws():
    model = nn.ModuleDict({"embed_tokens": nn.Embedding(5, 4), "inner": nn.Linear(4, 4, bias=False)})
    optimizer = MuonAdamW(model.named_parameters(), lr=0.1)
    assert optimizer._parts["adamw"].param_groups[0]["params"][0] is model["embed_tokens"].weight
    assert optimizer._parts["muon"].param_groups[0]["params"][0] is model["inner"].weight


def test_bad_states_are_refused():
    with pytest.raises(ValueError, match="nothing to train"):
        MuonAdamW([], lr=0.1)
    optimizer = MuonAdamW(_model().named_parameters(), lr=0.1)
    with pytest.raises(ValueError, match="same parameters"):
        optimizer.load_state_dict({"adamw": {}})
