"""How the page follows what a worker makes: an answer's words, and the newest of what is put into a queue."""

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import torch

from ..families.contract import Answer, DrawingProcessor, Step
from ..families.text_decoder import TextDecoder

__all__ = ["Teller", "all_news", "latest_news"]


class Teller:
    """Passes an answer on as it comes, until it is told to stop; see [`wallaroo_hf.families.contract.Listener`]."""

    def __init__(self, processor: DrawingProcessor, news: "queue.SimpleQueue[str]", stop: threading.Event) -> None:
        self.text, self.news, self.stop = TextDecoder.of(processor), news, stop

    def token(self, row: int, id: int) -> bool:
        """A token of text."""
        self.news.put(self.text.put(id))
        return not self.stop.is_set()

    def image_begins(self, row: int) -> None:
        """Answers to questions hold no pictures."""

    def image_step(self, row: int, step: Step) -> None:
        """Answers to questions hold no pictures."""

    def image_done(self, row: int, pixels: torch.Tensor, num_tokens: int) -> None:
        """Answers to questions hold no pictures."""

    def ended(self, row: int, answer: Answer) -> None:
        """The answer is complete."""
        self.news.put(self.text.end())


def all_news(news: "queue.SimpleQueue[Any]", future: "Future[Any]") -> Iterator[Any]:
    """Everything that is put into a queue until a future is done."""
    while not future.done() or not news.empty():
        try:
            yield news.get(timeout=0.05)
        except queue.Empty:
            continue


def latest_news(news: "queue.SimpleQueue[Any]", future: "Future[Any]") -> Iterator[Any]:
    """The newest thing in a queue, again and again until a future is done: who looks slowly misses what is between."""
    for item in all_news(news, future):
        while not news.empty():
            item = news.get()
        yield item
