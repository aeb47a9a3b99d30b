"""From raw code logits to codes: guidance, the caller's processors, noise."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList

from .logits_processors import (
    ForcedTokensLogitsProcessor,
    ImageGuidanceLogitsProcessor,
    ImageVocabularyLogitsProcessor,
    for_slice,
    works_on_slice,
)
from .outputs import Record
from .plan import DrawingPlan
from .sampling import GumbelNoise, first_largest


class ScoreRules:
    """What a code is chosen from: guided and processed scores.

    Args:
        model: the model.
        guidance_scales: one per step between neighbouring branches.
        processors: prepared by `generate`, the caller's own included.
        guidance_min_p: see [`ImageGuidanceLogitsProcessor`].
    """

    def __init__(
        self,
        model: Any,
        guidance_scales: Sequence[float],
        processors: LogitsProcessorList,
        guidance_min_p: float = 0.0,
    ) -> None:
        self.vocab_size = model.config.text_config.vocab_size
        self.codebook_size = model.config.codebook_size
        self.guide = ImageGuidanceLogitsProcessor(guidance_scales, guidance_min_p)
        self.widen = ImageVocabularyLogitsProcessor(self.vocab_size)
        self.on_slice = works_on_slice(processors)
        self.processors = for_slice(processors) if self.on_slice else processors

    def guided(self, input_ids: torch.Tensor, image_logits: torch.Tensor) -> torch.Tensor:
        """Raw logits `(branches * B, codebook_size)` to guided ones `(B, codebook_size)`; of `(B, T)` ids B counts."""
        return self.guide(input_ids, image_logits)

    def processed(self, input_ids: torch.Tensor, guided: torch.Tensor) -> torch.Tensor:
        """Guided scores `(B, codebook_size)` of the tokens after `(B, T)` ids to processed ones.

        As wide as they are if every processor does the same to the codes alone, else `vocab_size + codebook_size`.
        """
        if self.on_slice:
            return self.processors(input_ids, guided)
        return self.processors(input_ids, self.widen(input_ids, guided))

    def codes_of(self, scores: torch.Tensor) -> torch.Tensor:
        """The codes' part `(..., codebook_size)` of processed scores."""
        return scores[..., -self.codebook_size :]


class Chooser:
    """Turns raw code logits into the next token of each row.

    Args:
        rules: logits processors and their order.
        plan: which of the new tokens are codes and which are forced.
        generator: seeds the noise of all rows, or one for each; None = torch's own.
        generation_config: whether codes are sampled; warpers come from it as well.
        record: where scores go.
        prompt_length: tokens before the first new one.
    """

    def __init__(
        self,
        rules: ScoreRules,
        plan: DrawingPlan,
        generator: torch.Generator | Sequence[torch.Generator] | None,
        generation_config: GenerationConfig,
        record: Record,
        prompt_length: int,
    ) -> None:
        self.rules, self.plan, self.record = rules, plan, record
        self.force = ForcedTokensLogitsProcessor(plan.forced_token_ids, prompt_length)
        self.rows, device = len(plan.forced_token_ids), plan.forced_token_ids.device
        self.noise = None
        if generation_config.do_sample:
            self.noise = GumbelNoise(generator, self.rows, rules.codebook_size, device)

    def __call__(self, input_ids: torch.Tensor, image_logits: torch.Tensor | None, position: int) -> torch.Tensor:
        """Ids `(B,)` for the next position.

        Args:
            input_ids: `(B, T)` so far.
            image_logits: raw `(branches * B, codebook_size)`, or None where every row's token is forced.
        """
        forced = self.plan.forced_token_ids[:, position]
        is_code = self.plan.is_code[position]
        if image_logits is None:
            if self.noise is not None and any(is_code):  # given ones have their place in the noise too
                self.noise.next(is_code, self.plan.code_positions[:, position])
            if self.record.scores is not None or self.record.logits is not None:
                nothing = torch.zeros(self.rows, self.rules.codebook_size, device=input_ids.device)
                self._remember(input_ids, nothing, nothing)
            return forced
        scores = self.rules.processed(input_ids, self.rules.guided(input_ids, image_logits))
        self._remember(input_ids, scores, image_logits[: self.rows])
        codes = self.rules.codes_of(scores)
        if self.noise is not None:
            codes = codes + self.noise.next(is_code, self.plan.code_positions[:, position])
        return torch.where(forced >= 0, forced, first_largest(codes) + self.rules.vocab_size)

    def _remember(self, input_ids: torch.Tensor, scores: torch.Tensor, logits: torch.Tensor) -> None:
        """Keeps scores and logits if they are wanted, as wide as callers see them and with forced tokens forced."""
        for kept, values in ((self.record.scores, scores), (self.record.logits, logits)):
            if kept is not None:
                narrow = values.shape[-1] == self.rules.codebook_size
                wide = self.rules.widen(input_ids, values) if narrow else values
                kept.append(self.force(input_ids, wide))
