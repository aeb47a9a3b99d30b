"""What a drawing returns besides its ids, and how it is collected."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation import GenerateDecoderOnlyOutput

from .plan import DrawingPlan

__all__ = ["DrawingOutput", "DrawingStatistics"]


@dataclass(frozen=True)
class DrawingStatistics:
    """How a drawing went.

    Attributes:
        window: how many tokens a forward took at most; 1 = one code at a time.
        decided: per forward, the prompt's first, how many codes of each image it decided.
        gave_up_at: the forward from which on `window="auto"` decided one code at a time because guesses were rarely
            right, or None.
    """

    window: int
    decided: list[list[int]]
    gave_up_at: int | None = None

    @property
    def forwards(self) -> int:
        """Number of forwards, the prompt's included."""
        return len(self.decided)

    @property
    def codes_per_forward(self) -> float:
        """Mean number of codes that a forward decided for an image that was not complete."""
        counts = [count for forward in self.decided for count in forward if count]
        return sum(counts) / max(len(counts), 1)


@dataclass
class DrawingOutput(GenerateDecoderOnlyOutput):
    """transformers' own output, and how the drawing went.

    Attributes:
        statistics: see [`DrawingStatistics`].
        target_grid_hw: `(B, 2)` int64, rows and columns of each image; `decode_image_tokens` takes the whole output.
    """

    statistics: DrawingStatistics | None = None
    target_grid_hw: torch.Tensor | None = None


class Record:
    """Collects what `return_dict_in_generate` asked for, forward by forward."""

    def __init__(self, generation_config: GenerationConfig, rows: int) -> None:
        wanted = bool(generation_config.return_dict_in_generate)
        self.rows = rows
        self.scores: list[torch.Tensor] | None = [] if wanted and generation_config.output_scores else None
        self.logits: list[torch.Tensor] | None = [] if wanted and generation_config.output_logits else None
        self.hidden_states: list[tuple[torch.Tensor, ...]] | None = (
            [] if wanted and generation_config.output_hidden_states else None
        )
        self.attentions: list[tuple[torch.Tensor, ...]] | None = (
            [] if wanted and generation_config.output_attentions else None
        )
        self.decided: list[list[int]] = []

    def forward(self, outputs: Any, decided: Sequence[int]) -> None:
        """Keeps the conditional rows' hidden states and attentions of one forward, and how many codes it decided.

        As copies: views would keep the other branches' rows too, and the next replay of a CUDA graph overwrites them.
        """
        self.decided.append([int(count) for count in decided])
        for kept, given in ((self.hidden_states, outputs.hidden_states), (self.attentions, outputs.attentions)):
            if kept is not None:
                kept.append(tuple(layer[: self.rows].clone() for layer in given))

    def result(
        self,
        sequences: torch.Tensor,
        cache: Any,
        grids: Sequence[tuple[int, int]],
        window: int = 1,
        gave_up_at: int | None = None,
    ) -> DrawingOutput:
        """The output of `generate`; see [`DrawingOutput`] and [`DrawingStatistics`].

        Args:
            sequences: prompts and new tokens, `(B, T)`.
            cache: where keys and values are.
            grids: `(rows, cols)` of codes per image.
            window: how many tokens a forward took at most.
            gave_up_at: the forward from which on it went code by code; None = there was none.
        """

        def as_tuple(values: list[Any] | None) -> tuple[Any, ...] | None:
            return None if values is None else tuple(values)

        return DrawingOutput(
            sequences=sequences,
            scores=as_tuple(self.scores),
            logits=as_tuple(self.logits),
            attentions=as_tuple(self.attentions),
            hidden_states=as_tuple(self.hidden_states),
            cache=cache,
            statistics=DrawingStatistics(window, self.decided, gave_up_at),
            target_grid_hw=torch.tensor(grids, dtype=torch.long),
        )


class ScoreTable:
    """Scores of every new token `(B, vocab_size + codebook_size)`, written in whatever order the tokens are decided.

    Args:
        plan: says which tokens are forced; those have all their weight on themselves.
        vocab_size, codebook_size: of the model.
    """

    def __init__(self, plan: DrawingPlan, vocab_size: int, codebook_size: int) -> None:
        self.vocab_size = vocab_size
        forced = plan.forced_token_ids.T  # (N, B)
        shape = (*forced.shape, vocab_size + codebook_size)
        self.table = torch.full(shape, -torch.inf, device=forced.device)
        weight = torch.where(forced >= 0, 0.0, -torch.inf).unsqueeze(-1)
        self.table.scatter_(-1, forced.clamp(min=0).unsqueeze(-1), weight)

    def write(self, positions: torch.Tensor, right: torch.Tensor, scores: torch.Tensor) -> None:
        """Takes scores `(B, k, V)` at `positions` `(B, k)` where `right` `(B, k)` is True; V may be codes alone."""
        rows = torch.arange(len(positions), device=positions.device)[:, None].expand_as(positions)
        first = self.table.shape[-1] - scores.shape[-1]
        self.table[positions[right], rows[right], first:] = scores[right]

    def entries(self, count: int) -> list[torch.Tensor]:
        """The first `count` tokens' scores."""
        return list(self.table[:count])
