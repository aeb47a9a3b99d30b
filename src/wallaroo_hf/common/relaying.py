"""Streamers of answers that come in several pieces."""

from __future__ import annotations

from typing import Any

import torch
from transformers import StoppingCriteria
from transformers.generation.streamers import BaseStreamer

__all__ = ["Relay", "StreamerStopped"]


class Relay(BaseStreamer):
    """Makes one stream of several: the prompt once, all new ids in order, one end."""

    def __init__(self, streamer: BaseStreamer) -> None:
        self.streamer, self.started = streamer, False

    def put(self, value: torch.Tensor) -> None:
        """Passes new ids on; prompts (two dimensions) only the first time."""
        if value.ndim == 1 or not self.started:
            self.streamer.put(value)
        self.started = True

    def end(self) -> None:
        """The end of a segment is not the end."""

    @property
    def stopped(self) -> bool:
        """Whether the streamer asks to stop."""
        return getattr(self.streamer, "stopped", False)


class StreamerStopped(StoppingCriteria):
    """Ends text where its streamer asks to stop, by its attribute `stopped`; drawings look at it themselves.

    It is a token late, because `generate` asks its criteria before it shows a token to the streamer.
    """

    def __init__(self, streamer: BaseStreamer) -> None:
        self.streamer = streamer

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> torch.BoolTensor:
        """`(B,)`, all True or all False."""
        stopped = getattr(self.streamer, "stopped", False)
        return torch.full((len(input_ids),), stopped, dtype=torch.bool, device=input_ids.device)
