"""The thread that computes: it takes jobs in between two steps, and says which are over."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ..families.attempts import Attempt

if TYPE_CHECKING:
    from .batching import Job

__all__ = ["Computer", "Over", "Worker"]


@dataclass(frozen=True)
class Over:
    """Jobs that are over, or that failed together.

    Attributes:
        jobs: at least one.
        error: why there is no answer.
    """

    jobs: Sequence[Job]
    error: Exception | None = None


class Computer(Protocol):
    """What computes jobs, step by step; used by one thread."""

    @property
    def busy(self) -> bool:
        """Whether there is something to do."""

    def takes(self, lane: str) -> bool:
        """Whether more jobs of a lane can begin now."""

    def begin(self, jobs: Sequence[Job]) -> None:
        """Takes in jobs of one lane; they go on with the next step.

        Raises:
            Exception: if none of them can begin.
        """

    def step(self) -> Sequence[Over]:
        """One turn of all that is under way; returns what is over."""


class Worker:
    """A thread in which a computer works while there is something to do.

    Of jobs that fail together, those of which nothing is out yet are tried again in halves, one half after the other and
    when nothing else is under way: one that cannot be computed then fails alone, and less memory is needed at once.
    Meanwhile nothing new begins.

    Args:
        computer: computes.
        report: is called on the event loop with what is over, and with lanes that take more.
    """

    def __init__(self, computer: Computer, report: Callable[[Sequence[Over], Sequence[str]], None]) -> None:
        self._computer, self._report = computer, report
        self._given: queue.SimpleQueue[Sequence[Job] | None] = queue.SimpleQueue()
        self._again: deque[Sequence[Job]] = deque()
        self._shut: set[str] = set()  # lanes that were given jobs and have not been said to take more
        self._thread = threading.Thread(target=self._run, name="wallaroo-worker", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def alive(self) -> bool:
        """Whether it works."""
        return self._thread.is_alive()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to work, and to report on this loop."""
        self._loop = loop
        self._thread.start()

    def give(self, jobs: Sequence[Job]) -> None:
        """Hands it jobs that begin together; from any thread."""
        self._given.put(jobs)

    def stop(self) -> None:
        """Ends it when all that it has is over, and waits for that."""
        self._given.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        stopping = False
        while not stopping or self._computer.busy or self._again:
            over: list[Over] = []
            for jobs in self._receive(stopping):
                if jobs is None:
                    stopping = True
                else:
                    self._shut.add(jobs[0].lane)
                    over += self._begin(jobs)
            if self._again and not self._computer.busy:
                over += self._begin(self._again.popleft())
            if self._computer.busy:
                over += self._settle(self._computer.step())
            opened = [lane for lane in self._shut if not self._again and self._computer.takes(lane)]
            self._shut.difference_update(opened)
            if over or opened:
                self._say(over, opened)

    def _receive(self, stopping: bool) -> list[Sequence[Job] | None]:
        """What was given; waits for it where there is nothing else to do."""
        given: list[Sequence[Job] | None] = []
        if self._again:
            return given
        if not self._computer.busy and not stopping:
            given.append(self._given.get())
        while not self._given.empty():
            given.append(self._given.get())
        return given

    def _begin(self, jobs: Sequence[Job]) -> list[Over]:
        with Attempt() as attempt:
            self._computer.begin(jobs)
        return [] if attempt.error is None else self._settle([Over(jobs, attempt.error)])

    def _settle(self, ends: Sequence[Over]) -> list[Over]:
        """Those that are over for good; what failed together is to be tried again."""
        settled = []
        for end in ends:
            if end.error is None or len(end.jobs) == 1:
                settled.append(end)
                continue
            begun = [job for job in end.jobs if job.reported]
            fresh = [job for job in end.jobs if not job.reported]
            if begun:
                settled.append(Over(begun, end.error))
            half = len(fresh) // 2 if not begun else 0
            self._again += [jobs for jobs in (fresh[:half], fresh[half:]) if jobs]
        return settled

    def _say(self, over: Sequence[Over], opened: Sequence[str]) -> None:
        assert self._loop is not None, "it was not started"
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._report, over, opened)
