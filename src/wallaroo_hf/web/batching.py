"""A bounded queue whose work is done in batches of one kind, by one thread.

All state lives on the event loop's thread; the worker thread only computes, and reports through [`Job.emit`].
"""

import asyncio
import math
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from .errors import failed, queue_full, shutting_down


@dataclass(frozen=True)
class _Finished:
    """The last event of a job."""

    error: BaseException | None


class Job:
    """One image or one answer that somebody waits for. Make it on the event loop.

    Args:
        request: what is to be done.
        group: jobs of equal groups may be computed together.
        inbox: where it reports; the jobs of one request share it, see [`events`].
        alone: never together with others.
        num_bytes: memory that it holds while it waits.
        client: who asked; clients take turns.
    """

    def __init__(
        self,
        request: Any,
        group: Hashable,
        inbox: "asyncio.Queue[tuple[Job, Any]]",
        alone: bool = False,
        num_bytes: int = 0,
        client: str = "",
    ) -> None:
        self.request, self.group, self.inbox, self.alone = request, group, inbox, alone
        self.num_bytes, self.client = num_bytes, client
        self.turn = 0  # the queue's order
        self.cancelled = False  # read by the worker, which then stops as soon as nobody waits for its batch
        self.reported = False  # whether a part of the answer is out, so that it cannot be computed again
        self.over = False
        self._loop = asyncio.get_running_loop()
        self.arrived = self._loop.time()

    def emit(self, event: Any) -> None:
        """Reports a part of the answer; from any thread."""
        self.reported = True
        self._loop.call_soon_threadsafe(self.inbox.put_nowait, (self, event))

    def complete(self) -> None:
        """The answer is complete, though others of its batch may not be; from any thread."""
        self._loop.call_soon_threadsafe(self.finish)

    def finish(self, error: BaseException | None = None) -> None:
        """The answer is complete, or there will be none; on the event loop. Only the first call counts."""
        if not self.over:
            self.over = True
            self.inbox.put_nowait((self, _Finished(error)))

    def cancel(self, error: BaseException) -> None:
        """Nobody waits for it any more; whoever still does gets the error. On the event loop."""
        if not self.over:
            self.cancelled = True
            self.finish(error)


async def events(jobs: Sequence[Job]) -> AsyncIterator[tuple[int, Any]]:
    """What the jobs of a request report, as it comes, each with the job's index.

    Raises:
        ApiError: if one of them fails or is cancelled.
    """
    left = len(jobs)
    while left:
        job, event = await jobs[0].inbox.get()
        if not isinstance(event, _Finished):
            yield jobs.index(job), event
        elif event.error is not None:
            raise failed(event.error)
        else:
            left -= 1


class Batcher:
    """Takes jobs in turn and runs them in batches.

    Clients take turns, image by image: a job's turn is one after its client's last one, but not before those that run now
    (start-time fair queueing), so that a client who asks for much delays others by little and is delayed itself no further
    than by one job of each. Within a turn the oldest is first. The first job decides which group is next, so no group
    starves; others of its group go along, in their order.

    Args:
        run: computes a batch in the worker's thread. It reports through `job.emit`. When it raises and nothing of the
            batch is out yet, each half of the batch is tried again, so that a job that cannot be computed fails alone.
        max_batch, max_wait, max_queue, max_queue_bytes: see [`ServerSettings`].
        on_batch: called with each batch that ran and its seconds.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Job]], None],
        max_batch: int,
        max_wait: float,
        max_queue: int,
        max_queue_bytes: int,
        on_batch: Callable[[Sequence[Job], float], None] | None = None,
    ) -> None:
        self._run, self._on_batch = run, on_batch
        self.max_batch, self.max_wait = max_batch, max_wait
        self.max_queue, self.max_queue_bytes = max_queue, max_queue_bytes
        self._waiting: deque[Job] = deque()
        self._turn = 0  # of the job that was begun last
        self._last_turns: dict[str, int] = {}  # of clients that are ahead of that
        self._begun: weakref.WeakSet[asyncio.Queue[tuple[Job, Any]]] = weakref.WeakSet()  # by their inboxes
        self.running: Sequence[Job] = ()
        self.closed = False
        self._changed = asyncio.Event()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="wallaroo-worker")
        self._dispatcher: asyncio.Task[None] | None = None
        self._seconds_per_batch = 1.0

    def start(self) -> None:
        """Begins to work; on the event loop."""
        self._dispatcher = asyncio.get_running_loop().create_task(self._dispatch())

    @property
    def alive(self) -> bool:
        """Whether jobs that are submitted now will be worked on."""
        return not self.closed and self._dispatcher is not None and not self._dispatcher.done()

    @property
    def num_waiting(self) -> int:
        """Jobs in the queue, those that run not among them."""
        return sum(not job.cancelled for job in self._waiting)

    @property
    def retry_after(self) -> int:
        """Seconds until the queue should have room again: what a batch took lately."""
        return max(1, min(120, math.ceil(self._seconds_per_batch)))

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queues all jobs of a request, or none.

        Raises:
            ApiError: 429 if there is no room, 503 if the server is shutting down.
        """
        if not self.alive:
            raise shutting_down()
        self._forget_cancelled()
        held = sum(job.num_bytes for job in self._waiting)
        if len(self._waiting) + len(jobs) > self.max_queue or (
            self._waiting and held + sum(job.num_bytes for job in jobs) > self.max_queue_bytes
        ):
            raise queue_full(self.retry_after)
        for job in jobs:
            job.turn = max(self._turn, self._last_turns.get(job.client, 0)) + 1
            self._last_turns[job.client] = job.turn
        self._waiting.extend(jobs)
        self._changed.set()

    def close(self) -> None:
        """Takes nothing new and refuses requests of which nothing was begun; the others go on."""
        self.closed = True
        begun = [job for job in self._waiting if job.inbox in self._begun]
        for job in self._waiting:
            if job.inbox not in self._begun:
                job.cancel(shutting_down())
        self._waiting = deque(begun)
        self._changed.set()

    async def drain(self) -> None:
        """Closes, and waits for what was begun."""
        self.close()
        if self._dispatcher is not None:
            await self._dispatcher
        self._worker.shutdown(wait=True)

    def _forget_cancelled(self) -> None:
        if any(job.cancelled for job in self._waiting):
            self._waiting = deque(job for job in self._waiting if not job.cancelled)

    async def _dispatch(self) -> None:
        while self._waiting or not self.closed:
            await self._fill()
            self.running = self._take()
            if self.running:
                await self._work(self.running)
                self.running = ()

    async def _fill(self) -> None:
        """Waits until there is a batch to run: a full one, or one whose first job has waited long enough."""
        loop = asyncio.get_running_loop()
        while not self.closed:
            self._changed.clear()
            self._forget_cancelled()
            patience = None
            if self._waiting:
                first = min(self._waiting, key=_turn)
                companions = sum(job.group == first.group for job in self._waiting)
                patience = first.arrived + self.max_wait - loop.time()
                if first.alone or companions >= self.max_batch or patience <= 0:
                    return
            waiter = loop.create_task(self._changed.wait())
            await asyncio.wait({waiter}, timeout=patience)
            waiter.cancel()

    def _take(self) -> Sequence[Job]:
        """The first job and those of its group that go along."""
        if not self._waiting:
            return ()
        first = min(self._waiting, key=_turn)  # the oldest of its turn
        others = sorted((job for job in self._waiting if job is not first and job.group == first.group), key=_turn)
        batch = [first, *(others[: self.max_batch - 1] if not first.alone else [])]
        self._waiting = deque(job for job in self._waiting if job not in batch)
        self._turn = first.turn
        self._last_turns = {client: turn for client, turn in self._last_turns.items() if turn > self._turn}
        self._begun.update(job.inbox for job in batch)
        return batch

    async def _work(self, batch: Sequence[Job]) -> None:
        batch = [job for job in batch if not job.cancelled]
        if not batch:
            return
        loop = asyncio.get_running_loop()
        start = loop.time()
        work = loop.run_in_executor(self._worker, self._run, batch)
        await asyncio.wait({work})
        seconds = loop.time() - start
        error = work.exception()
        if error is not None and len(batch) > 1 and not any(job.reported for job in batch):
            half = len(batch) // 2
            await self._work(batch[:half])
            await self._work(batch[half:])
            return
        self._seconds_per_batch += 0.2 * (seconds - self._seconds_per_batch)
        if self._on_batch is not None:
            self._on_batch(batch, seconds)
        for job in batch:
            job.finish(error)


def _turn(job: Job) -> int:
    return job.turn
