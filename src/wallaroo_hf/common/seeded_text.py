"""Choosing words so that a seed gives the same answer alone or in any batch."""

from collections.abc import Sequence

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

__all__ = ["SeededChoice"]


class SeededChoice(LogitsProcessor):
    """Chooses the next token of each row itself and leaves `generate` no other.

    By Gumbel-max: the likeliest token after noise of the row's own generator is added, which samples exactly the filtered
    distribution. Without generators it is the likeliest token. Either way the rest of `generate`'s sampling has no say,
    and in auto mode images can be sampled while text is not.

    Args:
        generators: one per row, on the CPU; None: no sampling.
        temperature: above 0; 1 changes nothing.
        top_k: sample from the k likeliest tokens only.
        top_p: sample from the likeliest tokens that make up this probability only.
    """

    def __init__(
        self,
        generators: Sequence[torch.Generator] | None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> None:
        self.generators = generators
        self.warpers = LogitsProcessorList()
        if generators is not None and temperature != 1.0:
            self.warpers.append(TemperatureLogitsWarper(temperature))
        if generators is not None and top_k:
            self.warpers.append(TopKLogitsWarper(top_k))
        if generators is not None and top_p is not None and top_p < 1.0:
            self.warpers.append(TopPLogitsWarper(top_p))

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Scores `(B, V)` to scores that are 0 at the chosen token and -inf elsewhere."""
        filtered = self.warpers(input_ids, scores.float())
        if self.generators is not None:
            uniform = torch.stack([torch.rand(scores.shape[-1], generator=own) for own in self.generators])
            filtered = filtered - (-uniform.log()).log().to(filtered.device)
        chosen = filtered.argmax(dim=-1, keepdim=True)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)
