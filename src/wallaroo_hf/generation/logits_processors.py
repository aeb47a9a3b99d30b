"""The rules of drawing as logits processors: guidance, the code slice, and forced tokens.

They see what transformers' processors see: token ids `(B, T)` and scores of the next token.
"""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from transformers import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    LogitNormalization,
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from .sampling import kth_largest

__all__ = ["ForcedTokensLogitsProcessor", "ImageGuidanceLogitsProcessor", "ImageVocabularyLogitsProcessor"]

# Processors that treat scores as a set of numbers: they do the same to the code slice as to the whole vocabulary with
# -inf everywhere else, so the slice is enough.
_VOCABULARY_BLIND = (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    MinPLogitsWarper,
    TypicalLogitsWarper,
    EpsilonLogitsWarper,
    EtaLogitsWarper,
)
# Processors that keep nothing from call to call and treat each row for itself, by its ids. They can be asked about several
# positions at once, also about such that are not drawn in the end.
_ROW_WISE = (
    LogitNormalization,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensLogitsProcessor,
)


def works_in_windows(processor: LogitsProcessor) -> bool:
    """Whether a processor may be asked about positions out of turn: ours to know, or its attribute `row_wise` says so."""
    return type(processor) in (*_VOCABULARY_BLIND, *_ROW_WISE) or getattr(processor, "row_wise", False) is True


def works_on_slice(processors: LogitsProcessorList) -> bool:
    """Whether every processor gives the same result on the code slice alone."""
    return all(type(processor) in _VOCABULARY_BLIND for processor in processors)


class _CodeTopK(LogitsProcessor):
    """`TopKLogitsWarper` on the code slice, by a faster way to the same threshold."""

    def __init__(self, top_k: int) -> None:
        self.top_k = top_k

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        threshold = kth_largest(scores, min(self.top_k, scores.shape[-1]))
        return scores.masked_fill(scores < threshold, -torch.inf)


def for_slice(processors: LogitsProcessorList) -> LogitsProcessorList:
    """The same processors for scores of codes alone, `(B, codebook_size)` float32."""
    return LogitsProcessorList(
        _CodeTopK(processor.top_k)
        if type(processor) is TopKLogitsWarper and processor.filter_value == -torch.inf
        else processor
        for processor in processors
    )


def check_guidance_min_p(value: Any) -> None:
    """Refuses what is not a share of the largest probability.

    Raises:
        ValueError: unless it is a number from 0 to 1.
    """
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= float(value) <= 1:
        raise ValueError(f"`guidance_min_p` is {value!r}, but must be a number from 0 (off) to 1.")


class ImageGuidanceLogitsProcessor(LogitsProcessor):
    r"""Classifier-free guidance over branches that ran in one forward.

    Branches are ordered from the most to the least conditioned; the result is the last branch plus each scaled step
    between neighbours. With two branches that is `l_u + scale (l_c - l_u)`, the paper's formula.

    A difference of logits can make a code likely that the first branch all but rules out. With `min_p` only those codes are
    kept whose probability in the first branch, the fully conditioned one, is at least `min_p` times the largest there: the
    plausibility constraint of contrastive decoding (Li et al. 2022, arXiv 2210.15097). Without guidance nothing is added,
    so nothing needs to be bounded, and `min_p` has no effect.

    Args:
        scales: one per step, so one less than there are branches; none = no guidance.
        min_p: from 0 (off) to 1 (the likeliest code of the first branch alone).

    Raises:
        ValueError: for a scale that is not positive, or a `min_p` outside of 0 to 1.
    """

    def __init__(self, scales: Sequence[float], min_p: float = 0.0) -> None:
        if any(scale <= 0 for scale in scales):
            raise ValueError(f"Guidance scales are {list(scales)}, but must be positive.")
        check_guidance_min_p(min_p)
        self.scales, self.min_p = tuple(float(scale) for scale in scales), float(min_p)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Raw scores `(branches * B, V)`, branch by branch, to guided `(B, V)`; -inf where `min_p` rules a code out.

        Raises:
            ValueError: if there are not as many rows of scores as branches and ids need.
        """
        branches = len(self.scales) + 1
        if scores.shape[0] != branches * input_ids.shape[0]:
            raise ValueError(
                f"Guidance over {branches} branches needs {branches} rows of scores per row of ids, but got "
                f"{scores.shape[0]} rows for {input_ids.shape[0]}."
            )
        rows = scores.chunk(branches)
        guided = rows[-1]
        for scale, more, less in zip(self.scales, rows[:-1], rows[1:], strict=True):
            guided = guided + scale * (more - less)
        if self.scales and self.min_p:
            conditional = rows[0]
            least = conditional.amax(dim=-1, keepdim=True) + math.log(self.min_p)
            guided = guided.masked_fill(conditional < least, -torch.inf)
        return guided


class ImageVocabularyLogitsProcessor(LogitsProcessor):
    r"""Switches from the text vocabulary to image codes: code `i` becomes id `vocab_size + i`, text ids become -inf."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Code scores `(B, codebook_size)` to `(B, vocab_size + codebook_size)`."""
        return torch.nn.functional.pad(scores, (self.vocab_size, 0), value=-torch.inf)


class ForcedTokensLogitsProcessor(LogitsProcessor):
    r"""Writes into scores what the plan forces: line breaks, the image's end, padding after it.

    For scores that are handed out. It decides nothing: [`Chooser`] takes forced ids from the plan itself.

    Args:
        forced_token_ids: `(B, N)` int64, the id forced at each new position, or -1 where a code is decided.
        prompt_length: number of ids before the first new one.
    """

    def __init__(self, forced_token_ids: torch.Tensor, prompt_length: int) -> None:
        self.forced_token_ids = forced_token_ids
        self.prompt_length = prompt_length

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Scores `(B, V)`: forced rows become 0 at the forced id and -inf elsewhere."""
        forced = self.forced_token_ids[:, input_ids.shape[1] - self.prompt_length].unsqueeze(1)  # (B, 1)
        only = torch.full_like(scores, -torch.inf).scatter(1, forced.clamp(min=0), 0.0)
        return torch.where(forced >= 0, only, scores)
