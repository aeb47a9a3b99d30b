"""New tokens on their way to the caller: ids in order, streamer, stopping criteria."""

import torch
from transformers import MaxLengthCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer


class Delivery:
    """Takes the tokens of all rows position by position, and says when the caller wants no more.

    Args:
        input_ids: prompts `(B, L)`.
        num_new_tokens: how many tokens will come at most.
        pad_token_id: scalar tensor; what rows get that the criteria have finished.
        streamer: one that has an attribute `stopped` ends the drawing by setting it.
        stopping_criteria: the caller's.
    """

    def __init__(
        self,
        input_ids: torch.Tensor,
        num_new_tokens: int,
        pad_token_id: torch.Tensor,
        streamer: BaseStreamer | None,
        stopping_criteria: StoppingCriteriaList,
    ) -> None:
        rows, self.length = input_ids.shape
        self.pad_token_id, self.streamer = pad_token_id, streamer
        # A length that is reached only at the end need not be checked at each code.
        self.criteria = StoppingCriteriaList([c for c in stopping_criteria if not isinstance(c, MaxLengthCriteria)])
        self.finished = torch.zeros(rows, dtype=torch.bool, device=input_ids.device)
        self.sequences = input_ids.new_empty(rows, self.length + num_new_tokens)
        self.sequences[:, : self.length] = input_ids

    @property
    def so_far(self) -> torch.Tensor:
        """Prompts and tokens that were delivered: `(B, T)`."""
        return self.sequences[:, : self.length]

    @property
    def is_followed(self) -> bool:
        """Whether anyone looks at the tokens before the drawing is complete."""
        return self.streamer is not None or bool(self.criteria)

    def put(self, tokens: torch.Tensor, scores: list[torch.Tensor] | None) -> bool:
        """Delivers the next token of each row, `(B,)`; returns whether to stop.

        `scores` are those of all tokens so far, for the criteria.
        """
        if self.criteria:
            tokens = torch.where(self.finished, self.pad_token_id, tokens)
        self.sequences[:, self.length] = tokens
        self.length += 1
        if self.streamer is not None:
            self.streamer.put(tokens.cpu())
            if getattr(self.streamer, "stopped", False):
                return True
        if self.criteria:
            self.finished = self.finished | self.criteria(self.so_far, None if scores is None else tuple(scores))
            return bool(self.finished.all())
        return False

    def put_all(self, tokens: torch.Tensor) -> None:
        """Delivers `(B, k)` tokens that nobody follows."""
        self.sequences[:, self.length : self.length + tokens.shape[1]] = tokens
        self.length += tokens.shape[1]

    def end(self) -> None:
        """Tells the streamer that nothing more comes."""
        if self.streamer is not None:
            self.streamer.end()
