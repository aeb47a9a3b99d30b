"""The small rules that drawing is made of, each alone: guidance, the code slice, forced tokens, noise, plans."""

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from helpers import generators
from wallaroo_hf.generation.logits_processors import (
    ForcedTokensLogitsProcessor,
    ImageGuidanceLogitsProcessor,
    ImageVocabularyLogitsProcessor,
    for_slice,
    works_on_slice,
)
from wallaroo_hf.generation.plan import plan_drawing
from wallaroo_hf.generation.sampling import POSITIONS_PER_BLOCK, GumbelNoise, first_largest, kth_largest

IDS = torch.zeros(2, 5, dtype=torch.long)
BREAK, END, PAD = 90, 91, 92


def test_guidance_is_the_papers_formula():
    conditional, unconditional = torch.randn(2, 2, 7)
    guided = ImageGuidanceLogitsProcessor([3.0])(IDS, torch.cat([conditional, unconditional]))
    torch.testing.assert_close(guided, unconditional + 3.0 * (conditional - unconditional))


def test_guidance_over_three_branches():
    full, image_only, nothing = torch.randn(3, 2, 7)
    guided = ImageGuidanceLogitsProcessor([4.0, 1.5])(IDS, torch.cat([full, image_only, nothing]))
    torch.testing.assert_close(guided, nothing + 4.0 * (full - image_only) + 1.5 * (image_only - nothing))


def test_no_guidance_changes_nothing():
    scores = torch.randn(2, 7)
    assert torch.equal(ImageGuidanceLogitsProcessor([])(IDS, scores), scores)


def test_guidance_counts_rows():
    with pytest.raises(ValueError, match="2 rows for 2"):
        ImageGuidanceLogitsProcessor([3.0])(IDS, torch.randn(2, 7))
    with pytest.raises(ValueError, match="positive"):
        ImageGuidanceLogitsProcessor([-1.0])


def test_codes_that_are_implausible_by_themselves_are_not_guided_to():
    """Those below a share of the largest conditional probability; the others are guided as ever."""
    conditional = torch.tensor([[0.0, -1.0, -4.0], [3.0, 3.0, 2.0]])
    unconditional = torch.tensor([[2.0, -3.0, -40.0], [0.0, 1.0, -9.0]])
    guided = ImageGuidanceLogitsProcessor([3.0])(IDS, torch.cat([conditional, unconditional]))
    assert guided.argmax(dim=-1).tolist() == [2, 2]  # far from what the conditional branch says
    kept = ImageGuidanceLogitsProcessor([3.0], min_p=0.3)(IDS, torch.cat([conditional, unconditional]))
    plausible = conditional.softmax(dim=-1) >= 0.3 * conditional.softmax(dim=-1).amax(dim=-1, keepdim=True)
    assert plausible.tolist() == [[True, True, False], [True, True, True]]
    assert torch.equal(kept, guided.masked_fill(~plausible, -torch.inf))
    largest = ImageGuidanceLogitsProcessor([3.0], min_p=1.0)(IDS, torch.cat([conditional, unconditional]))
    assert largest.isfinite().tolist() == [[True, False, False], [True, True, False]]


def test_the_plausible_codes_are_the_fully_conditioned_branchs():
    full, image_only, nothing = torch.randn(3, 2, 50)
    rows = torch.cat([full, image_only, nothing])
    guided = ImageGuidanceLogitsProcessor([4.0, 1.5], min_p=0.2)(IDS, rows)
    shares = full.softmax(dim=-1) / full.softmax(dim=-1).amax(dim=-1, keepdim=True)
    assert torch.equal(guided.isfinite(), shares >= 0.2)


def test_without_guidance_every_code_stays():
    scores = torch.randn(2, 7)
    assert torch.equal(ImageGuidanceLogitsProcessor([], min_p=0.9)(IDS, scores), scores)


@pytest.mark.parametrize("min_p", [-0.1, 1.5, True, float("nan"), "0.1", None], ids=str)
def test_a_share_is_between_0_and_1(min_p):
    with pytest.raises(ValueError, match=r"`guidance_min_p` is .* but must be a number from 0"):
        ImageGuidanceLogitsProcessor([3.0], min_p)


def test_code_slice():
    wide = ImageVocabularyLogitsProcessor(vocab_size=3)(IDS, torch.ones(2, 4))
    assert wide.tolist() == [[-torch.inf] * 3 + [1.0] * 4] * 2


def test_forced_tokens():
    force = ForcedTokensLogitsProcessor(torch.tensor([[-1, 2], [4, -1]]), prompt_length=5)
    scores = torch.randn(2, 6)
    forced = force(IDS, scores)
    assert torch.equal(forced[0], scores[0])
    assert forced[1].argmax() == 4 and torch.isfinite(forced[1]).sum() == 1


@pytest.mark.parametrize("top_k", [1, 3, 50, 200, 1000])
def test_top_k_on_the_slice_keeps_what_transformers_keeps(top_k):
    """Ties at the threshold too."""
    scores = torch.randn(3, 200).round(decimals=1)
    scores[1, 7] = -torch.inf
    stock = LogitsProcessorList([TemperatureLogitsWarper(0.7), TopKLogitsWarper(top_k)])
    ours = for_slice(stock)
    assert ours[0] is stock[0] and ours[1] is not stock[1]
    kept = stock(IDS, scores)
    assert torch.equal(ours(IDS, scores), kept)
    finite = TopKLogitsWarper(top_k, filter_value=-1e4)
    assert for_slice(LogitsProcessorList([finite]))[0] is finite


def test_largest():
    """What numpy finds on CPU is what torch finds; the first of equals."""
    scores = torch.tensor([[1.0, 5.0, 5.0, 2.0], [-torch.inf, torch.nan, 3.0, 4.0]])
    for k in (1, 2, 3, 4):
        expected = torch.topk(scores, k).values[:, -1:]
        torch.testing.assert_close(kth_largest(scores, k), expected, equal_nan=True, rtol=0, atol=0)
    assert torch.equal(first_largest(scores), scores.argmax(dim=-1))
    assert first_largest(scores).tolist() == first_largest(scores.bfloat16()).tolist() == [1, 1]


@pytest.mark.parametrize("warper", [TopKLogitsWarper(3), TopPLogitsWarper(0.7)])
def test_warpers_do_the_same_on_the_slice(warper):
    assert works_on_slice(LogitsProcessorList([warper]))
    scores = torch.randn(2, 20)
    wide = ImageVocabularyLogitsProcessor(50)(IDS, scores)
    assert torch.equal(warper(IDS, wide)[:, 50:], warper(IDS, scores))


def test_processors_that_look_at_ids_need_the_whole_width():
    assert not works_on_slice(LogitsProcessorList([RepetitionPenaltyLogitsProcessor(1.2)]))


def test_plan_with_line_breaks():
    plan = plan_drawing([(2, 3), (1, 2)], True, BREAK, END, PAD)
    assert plan.length == 8
    assert plan.forced_token_ids.tolist() == [
        [-1, -1, -1, BREAK, -1, -1, -1, END],
        [-1, -1, END, PAD, PAD, PAD, PAD, PAD],
    ]
    drawn = plan.forced_token_ids == -1
    assert plan.code_positions[drawn].tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    assert plan.is_code[2] == [True, False] and plan.is_code[7] == [False, False]


def test_plan_on_the_plain_grid():
    assert plan_drawing([(2, 2)], False, BREAK, END, PAD).forced_token_ids.tolist() == [[-1, -1, -1, -1, END]]


def test_noise_depends_on_seed_and_position_only():
    """Alone, in a batch with others, or with pauses between codes: position k of a seed sees the same numbers."""
    alone = GumbelNoise(generators(7), 1, 11, torch.device("cpu"))
    batch = GumbelNoise(generators(3, 7), 2, 11, torch.device("cpu"))
    position = 0
    for step in range(2 * POSITIONS_PER_BLOCK + 5):
        pauses = step % 5 == 4
        together = batch.next([True, not pauses], torch.tensor([step, position]))
        if not pauses:
            single = alone.next([True], torch.tensor([position]))
            assert torch.equal(together[1], single[0])
            position += 1


def test_noise_samples_the_distribution():
    """The argmax of logits plus Gumbel noise follows the softmax: 20,000 draws, four standard deviations."""
    noise = GumbelNoise(generators(0), 1, 4, torch.device("cpu"))
    logits = torch.tensor([0.0, 1.0, 2.0, -torch.inf])
    draws = [int((logits + noise.next([True], torch.tensor([k]))[0]).argmax()) for k in range(20_000)]
    shares = torch.bincount(torch.tensor(draws), minlength=4) / len(draws)
    expected = logits.softmax(dim=0)
    assert ((shares - expected).abs() <= 4 * (expected * (1 - expected) / len(draws)).sqrt()).all()
