"""Answers that go on by turns with one another and with drawings: [`AnswerBatches`]."""

import threading
from collections.abc import Sequence

import torch

from ..families.attempts import Attempt
from ..families.contract import DrawingModel, DrawingProcessor, Step
from ..families.prefixes import PrefixStore
from .answer_writers import AnswersListener
from .batching import Job
from .requests import Answer
from .worker import Over

__all__ = ["AnswerBatches"]

_MOST = 4  # batches at once; each has a thread
_LONG = 32  # turns after which a batch keeps no others waiting, for more together cost less


class AnswerBatches:
    """Batches of answers that are under way. Answers of one batch share their forwards.

    While a batch is young, those that come wait and make up the next one, for whose end short answers need not wait long;
    one that goes on for longer takes turns with the next, forward by forward.

    Args:
        model, processor: a loaded checkpoint.
        prefixes: where what was read of chats is kept, for each client; None = nowhere.
    """

    def __init__(self, model: DrawingModel, processor: DrawingProcessor, prefixes: PrefixStore | None = None) -> None:
        self.model, self.processor, self.prefixes = model, processor, prefixes
        self._batches: list[_AnswerBatch] = []
        self._over: list[Over] = []

    @property
    def busy(self) -> bool:
        """Whether something is under way, or to be said."""
        return bool(self._batches or self._over)

    @property
    def num_rows(self) -> int:
        """How many answers are not complete."""
        return sum(not job.over for batch in self._batches for job in batch.jobs)

    @property
    def takes_more(self) -> bool:
        """Whether another batch can begin."""
        return len(self._batches) < _MOST and all(batch.turns >= _LONG for batch in self._batches)

    def begin(self, jobs: Sequence[Job]) -> None:
        """Takes in answers of one group, as a batch."""
        self._over += [Over([job]) for job in jobs if job.cancelled]
        wanted = [job for job in jobs if not job.cancelled]
        if wanted:
            self._batches.append(_AnswerBatch(wanted, self.model, self.processor, self.prefixes))

    def step(self) -> list[Over]:
        """A forward of each batch."""
        for batch in list(self._batches):
            if batch.turn():
                self._batches.remove(batch)
                self._over.append(Over(batch.jobs, batch.error))
        over, self._over = self._over, []
        return over

    def abandon(self, error: Exception) -> list[Over]:
        """All of it is over: rows end with their next word, and nobody hears of it."""
        for batch in self._batches:
            batch.end()
        abandoned = [Over(batch.jobs, error) for batch in self._batches]
        over, self._over, self._batches = self._over, [], []
        return [*over, *abandoned]


class _AnswerBatch:
    """Answers that share their forwards, written by a thread that computes only when it is its turn.

    A model answers a whole batch in one call; the thread waits inside of it, where it hears of new words. Only one thread
    computes at a time, so nothing of the model is shared between two forwards.

    Args:
        jobs: of one group.
        model, processor: a loaded checkpoint.
        prefixes: where what was read of chats is kept; None = nowhere.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        model: DrawingModel,
        processor: DrawingProcessor,
        prefixes: PrefixStore | None,
    ) -> None:
        self.jobs, self.model, self.processor, self.prefixes = jobs, model, processor, prefixes
        self.turns = 0
        self.error: Exception | None = None
        self._is_over = False
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._work, name="wallaroo-answers", daemon=True)

    def turn(self) -> bool:
        """Lets it compute until the next words are there; returns whether it is over."""
        self.turns += 1
        if self.turns == 1:
            self._thread.start()
        else:
            self._go.release()
        self._back.acquire()
        return self._is_over

    def end(self) -> None:
        """Lets every row end with its next word, and its thread with them."""
        for job in self.jobs:
            job.cancelled = True
        while self._thread.is_alive() and not self._is_over:
            self.turn()

    def pause(self) -> None:
        """Waits for the next turn; in the batch's own thread."""
        self._back.release()
        self._go.acquire()

    def _work(self) -> None:
        with Attempt() as attempt, torch.no_grad():
            self._answer()
        self.error = attempt.error
        self._is_over = True
        self._back.release()

    def _answer(self) -> None:
        requests: list[Answer] = [job.request for job in self.jobs]
        first = requests[0]
        inputs = self.processor.collate([request.inputs for request in requests])
        self.model.converse(
            inputs.to(self.model.device, dtype=self.model.dtype),
            mode=first.mode,
            follow=_PausingListener(self, self.processor),
            generators=[torch.Generator().manual_seed(request.seed) for request in requests],
            max_new_tokens=[request.max_new_tokens for request in requests],
            text=first.settings,
            drawing=first.drawing,
            **({} if self.prefixes is None else {"prefixes": [self.prefixes.of(job.client) for job in self.jobs]}),
        )


class _PausingListener(AnswersListener):
    """Ends a turn with the first word of each forward, when it is out, and with each step of a picture.

    Args:
        batch: whose turn it is.
        processor: turns ids into text and pixels into pictures.
    """

    def __init__(self, batch: _AnswerBatch, processor: DrawingProcessor) -> None:
        super().__init__(batch.jobs, processor)
        self._batch = batch
        self._last = len(batch.jobs)  # the row that was heard last

    def token(self, row: int, id: int) -> bool:
        """A token of text."""
        goes_on = super().token(row, id)
        is_new = row <= self._last
        self._last = row
        if is_new:
            self._batch.pause()
        return goes_on

    def image_step(self, row: int, step: Step) -> bool:
        """A picture came further."""
        self._batch.pause()
        return super().image_step(row, step)
