"""Streamers for drawing; any transformers streamer works too."""

from collections.abc import Callable

import torch
from transformers.generation.streamers import BaseStreamer

__all__ = ["ProgressStreamer"]


class ProgressStreamer(BaseStreamer):
    """Reports how many codes of each image are drawn.

    Args:
        vocab_size: `config.text_config.vocab_size`; ids from there on are codes.
        callback: called after each new token with one count per image.
    """

    def __init__(self, vocab_size: int, callback: Callable[[list[int]], None]) -> None:
        self.vocab_size = vocab_size
        self.callback = callback
        self._counts: list[int] | None = None

    def put(self, value: torch.Tensor) -> None:
        """Takes the prompts `(B, L)` first, then the next ids `(B,)`."""
        if self._counts is None:
            self._counts = [0] * len(value)
            return
        self._counts = [count + int(token >= self.vocab_size) for count, token in zip(self._counts, value.tolist())]
        self.callback(self._counts)

    def end(self) -> None:
        """The images are complete; the next `put` starts new ones."""
        self._counts = None
