"""A bounded queue of which each job begins as soon as there is a place for it.

All state lives on the event loop's thread; the thread of [`Worker`] only computes, and reports through [`Job.emit`].
"""

import asyncio
import math
import weakref
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import failed, queue_full, shutting_down
from .worker import Computer, Over, Worker


@dataclass(frozen=True)
class _Finished:
    """The last event of a job."""

    error: BaseException | None


class Job:
    """One image or one answer that somebody waits for. Make it on the event loop.

    Args:
        request: what is to be done.
        group: jobs of equal groups may begin together.
        inbox: where it reports; the jobs of one request share it, see [`events`].
        alone: never together with others.
        num_bytes: memory that it holds while it waits.
        client: who asked; clients take turns.
        lane: jobs of one lane take places from one another; lanes go on side by side.
    """

    def __init__(
        self,
        request: Any,
        group: Hashable,
        inbox: "asyncio.Queue[tuple[Job, Any]]",
        alone: bool = False,
        num_bytes: int = 0,
        client: str = "",
        lane: str = "",
    ) -> None:
        self.request, self.group, self.inbox, self.alone = request, group, inbox, alone
        self.num_bytes, self.client, self.lane = num_bytes, client, lane
        self.turn = 0  # the queue's order
        self.cancelled = False  # read by the worker, which then frees its row
        self.reported = False  # whether a part of the answer is out, so that it cannot be computed again
        self.over = False
        self._loop = asyncio.get_running_loop()
        self.arrived = self._loop.time()
        self.begun = 0.0  # when it was handed to the worker
        self.on_over: Callable[[], None] | None = None

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
            if self.on_over is not None:
                self.on_over()

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


@dataclass
class _Lane:
    """Jobs that take places from one another.

    Attributes:
        waiting: in the order of their arrival.
        running: that the worker has, in the order in which they began.
        turn: of the job that was begun last.
        last_turns: of clients that are ahead of that.
        is_open: whether the worker takes more now.
    """

    waiting: list[Job] = field(default_factory=list)
    running: list[Job] = field(default_factory=list)
    turn: int = 0
    last_turns: dict[str, int] = field(default_factory=dict)
    is_open: bool = True

    def line_up(self, job: Job) -> None:
        """Puts a job behind those of its client, and among the others by turns."""
        job.turn = max(self.turn, self.last_turns.get(job.client, 0)) + 1
        self.last_turns[job.client] = job.turn
        self.waiting.append(job)

    def next_batch(self, places: int) -> list[Job]:
        """The first job and those of its group that may begin with it, at most so many; they still wait."""
        first = min(self.waiting, key=_turn)  # the oldest of its turn
        others = sorted((job for job in self.waiting if job is not first and job.group == first.group), key=_turn)
        return [first, *(others[: places - 1] if not first.alone else [])]

    def begin(self, batch: Sequence[Job]) -> None:
        """These run now."""
        self.waiting = [job for job in self.waiting if job not in batch]
        self.running += batch
        self.turn = batch[0].turn
        self.last_turns = {client: turn for client, turn in self.last_turns.items() if turn > self.turn}


class Batcher:
    """Takes jobs in turn and hands them to a thread that computes.

    Clients take turns, image by image: a job's turn is one after its client's last one, but not before those that run now
    (start-time fair queueing), so that a client who asks for much delays others by little and is delayed itself no further
    than by one job of each. Within a turn the oldest is first. The first job decides which group is next, so no group
    starves; others of its group go along, in their order. Each lane has places and turns of its own.

    Args:
        computer: computes in the worker's thread.
        max_batch, max_wait, max_queue, max_queue_bytes: see [`ServerSettings`]; `max_batch` places are those of a lane.
        on_begin: called with jobs that begin together, and how many others of their lane are under way.
        on_over: called with a job that is over, and the seconds since it began.
    """

    def __init__(
        self,
        computer: Computer,
        max_batch: int,
        max_wait: float,
        max_queue: int,
        max_queue_bytes: int,
        on_begin: Callable[[Sequence[Job], int], None] | None = None,
        on_over: Callable[[Job, float], None] | None = None,
    ) -> None:
        self._on_begin, self._on_over = on_begin, on_over
        self.max_batch, self.max_wait = max_batch, max_wait
        self.max_queue, self.max_queue_bytes = max_queue, max_queue_bytes
        self._lanes: dict[str, _Lane] = {}
        self._begun: weakref.WeakSet[asyncio.Queue[tuple[Job, Any]]] = weakref.WeakSet()  # by their inboxes
        self.closed = False
        self._changed = asyncio.Event()
        self._worker = Worker(computer, self._reported)
        self._dispatcher: asyncio.Task[None] | None = None
        self._seconds_per_job = 1.0

    def start(self) -> None:
        """Begins to work; on the event loop."""
        loop = asyncio.get_running_loop()
        self._worker.start(loop)
        self._dispatcher = loop.create_task(self._dispatch())

    @property
    def alive(self) -> bool:
        """Whether jobs that are submitted now will be worked on."""
        return not self.closed and self._dispatcher is not None and not self._dispatcher.done() and self._worker.alive

    @property
    def waiting(self) -> list[Job]:
        """Jobs in the queue."""
        return [job for lane in self._lanes.values() for job in lane.waiting]

    @property
    def running(self) -> list[Job]:
        """Jobs that the worker has; some may be answered or given up already."""
        return [job for lane in self._lanes.values() for job in lane.running]

    @property
    def num_waiting(self) -> int:
        """Jobs in the queue, those that run not among them."""
        return sum(not job.cancelled for job in self.waiting)

    @property
    def retry_after(self) -> int:
        """Seconds until the queue should have room again: what a job took lately."""
        return max(1, min(120, math.ceil(self._seconds_per_job)))

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queues all jobs of a request, or none.

        Raises:
            ApiError: 429 if there is no room, 503 if the server is shutting down.
        """
        if not self.alive:
            raise shutting_down()
        self._forget_cancelled()
        held, waiting = sum(job.num_bytes for job in self.waiting), len(self.waiting)
        if waiting + len(jobs) > self.max_queue or (
            waiting and held + sum(job.num_bytes for job in jobs) > self.max_queue_bytes
        ):
            raise queue_full(self.retry_after)
        for job in jobs:
            job.on_over = self._changed.set
            self._lanes.setdefault(job.lane, _Lane()).line_up(job)
        self._changed.set()

    def close(self) -> None:
        """Takes nothing new and refuses requests of which nothing was begun; the others go on."""
        self.closed = True
        for job in self.waiting:
            if job.inbox not in self._begun:
                job.cancel(shutting_down())
        self._forget_cancelled()
        self._changed.set()

    async def drain(self) -> None:
        """Closes, and waits for what was begun."""
        self.close()
        if self._dispatcher is not None:
            await self._dispatcher
        self._worker.stop()

    def _forget_cancelled(self) -> None:
        for lane in self._lanes.values():
            lane.waiting = [job for job in lane.waiting if not job.cancelled]

    async def _dispatch(self) -> None:
        """Hands out what there is a place for, whenever something has changed."""
        loop = asyncio.get_running_loop()
        while self.waiting or self.running or not self.closed:
            self._changed.clear()
            self._forget_cancelled()
            patience = min((wait for lane in self._lanes.values() for wait in self._hand_out(lane)), default=None)
            waiter = loop.create_task(self._changed.wait())
            await asyncio.wait({waiter}, timeout=patience)
            waiter.cancel()

    def _hand_out(self, lane: _Lane) -> Iterator[float]:
        """Gives the worker what may begin now, if it takes it; or says how long the first job waits for companions."""
        free = self.max_batch - sum(not job.over for job in lane.running)
        if not lane.is_open or not lane.waiting or free <= 0:
            return
        batch = lane.next_batch(free)
        if not lane.running and not self.closed and not batch[0].alone and len(batch) < self.max_batch:
            patience = batch[0].arrived + self.max_wait - asyncio.get_running_loop().time()
            if patience > 0:
                yield patience
                return
        others = len(lane.running)
        lane.begin(batch)
        lane.is_open = False  # until the worker has begun them
        self._begun.update(job.inbox for job in batch)
        for job in batch:
            job.begun = asyncio.get_running_loop().time()
        if self._on_begin is not None:
            self._on_begin(batch, others)
        self._worker.give(batch)

    def _reported(self, over: Sequence[Over], opened: Sequence[str]) -> None:
        """What the worker has to say; on the event loop."""
        now = asyncio.get_running_loop().time()
        for end in over:
            for job in end.jobs:
                self._lanes[job.lane].running.remove(job)
                self._seconds_per_job += 0.2 * (now - job.begun - self._seconds_per_job)
                if self._on_over is not None:
                    self._on_over(job, now - job.begun)
                job.finish(end.error)
        for name in opened:
            self._lanes[name].is_open = True
        self._changed.set()


def _turn(job: Job) -> int:
    return job.turn
