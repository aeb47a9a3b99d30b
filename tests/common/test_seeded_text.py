"""Choosing words: what a seed fixes, and what belongs to a row alone."""

from __future__ import annotations

import torch

from helpers import generators
from wallaroo_hf.common.seeded_text import SeededChoice


def test_choices_follow_the_filtered_distribution():
    scores = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    choice = SeededChoice(generators(0), temperature=2.0, top_k=3)
    counts = torch.zeros(4)
    for _ in range(4000):
        chosen = choice(torch.zeros(1, 1, dtype=torch.long), scores)
        assert torch.isfinite(chosen).sum() == 1
        counts[chosen.argmax()] += 1
    expected = torch.softmax(torch.tensor([1.0, 0.5, 0.0]), 0)
    assert counts[3] == 0
    assert torch.allclose(counts[:3] / 4000, expected, atol=0.03)  # four standard deviations


def test_choices_belong_to_their_row():
    scores = torch.randn(3, 50, generator=torch.Generator().manual_seed(1))
    ids = torch.zeros(3, 1, dtype=torch.long)
    together = SeededChoice(generators(1, 2, 3), top_p=0.9)(ids, scores)
    for row, seed in enumerate((1, 2, 3)):
        alone = SeededChoice(generators(seed), top_p=0.9)(ids[:1], scores[row : row + 1])
        assert torch.equal(alone[0], together[row])


def test_without_generators_it_is_the_likeliest():
    scores = torch.tensor([[0.0, 3.0, 1.0]], dtype=torch.bfloat16)
    chosen = SeededChoice(None, temperature=5.0, top_k=1)(torch.zeros(1, 1, dtype=torch.long), scores)
    assert chosen.tolist() == [[-torch.inf, 0.0, -torch.inf]] and chosen.dtype == torch.bfloat16
