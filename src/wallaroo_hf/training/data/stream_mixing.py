"""The mixture of [`wallaroo_hf.training.data.mixing`] for sources that are streamed.

A position is a few small numbers per source: which pass, which shard, which block of rows. Continuing there reads at most
one shard again, up to where it was.
"""

import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from .mixing import Pattern, Source, known_policy, note_skipped, permuted_index, row_at, usable_row, weigh
from .training_rows import ORDINAL, SIZE_MULTIPLE, Row, RowError

__all__ = ["StreamMixture"]

_GIVEN = "drawn"  # how many rows; states that were saved call it so


class StreamMixture(IterableDataset):
    """Gives rows of several tasks in a fixed ratio from streams, without end.

    Each reader (worker of a process) reads its own shards, or its own rows of a shard where there are more readers than
    shards. Shards are shuffled in every pass, rows within blocks of `block_size`. Sources with a length are
    shuffled whole.

    It shards itself: give it to a plain `DataLoader`, not to `accelerator.prepare`, which would shard it again. With
    `state_dict` and `load_state_dict` it continues where it was, to the row; in workers these are called by torchdata's
    `StatefulDataLoader` (accelerate's `use_stateful_dataloader`). `WallarooTrainer` does not keep this state: it resumes at
    the right row by reading all rows before it again.

    Args:
        sources: task -> its sources; several of one task need a `weight` each.
        ratio: task -> share of rows; 0 leaves a task out.
        seed: of the order.
        batch_size: rows per process and batch. With it the batches of all processes together have the ratio, as with
            `TaskMixture`; it must be the loader's.
        block_size: rows that are shuffled together, and held in memory, per source.
        shuffle: whether shards and rows are shuffled.
        rank, world_size: of this process; default: torch.distributed's, or those that `torchrun` sets.
        check, on_error, size_multiple: as for [`wallaroo_hf.training.data.mixing.TaskMixture`].

    Raises:
        ValueError: as `TaskMixture`.
    """

    def __init__(
        self,
        sources: Mapping[str, Sequence[Source]],
        ratio: Mapping[str, float] | None = None,
        seed: int = 0,
        batch_size: int = 1,
        block_size: int = 1000,
        shuffle: bool = True,
        rank: int | None = None,
        world_size: int | None = None,
        check: Callable[[Row], Row] | None = None,
        on_error: str = "raise",
        size_multiple: int = SIZE_MULTIPLE,
    ) -> None:
        for task, found in sources.items():
            unweighted = [source.name for source in found if source.weight is None]
            if len(found) > 1 and unweighted:
                raise ValueError(f"Task '{task}' is streamed from several sources; give '{unweighted[0]}' a weight.")
        if ratio is None and len(sources) > 1:
            raise ValueError("Streams have no number of rows; give the `ratio` in which to mix the tasks.")
        weighted = weigh(sources, ratio)
        self.tasks = [task for task, _, _ in weighted]
        self.sources = [source for _, source, _ in weighted]
        self.pattern = Pattern([share for _, _, share in weighted])
        self.seed, self.batch_size, self.block_size, self.shuffle = seed, batch_size, block_size, shuffle
        self.check, self.on_error, self.size_multiple = check, known_policy(on_error), size_multiple
        own_rank, own_world_size = _process()
        self.rank = own_rank if rank is None else rank
        self.world_size = own_world_size if world_size is None else world_size
        self._streams: dict[int, _Stream] = {}
        self._given = 0
        self._reader = (0, 1)
        self._pending: dict[str, Any] | None = None

    def __iter__(self) -> Iterator[Row]:
        worker = get_worker_info()
        worker_number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        self._reader = (self.rank * workers + worker_number, self.world_size * workers)
        self._streams = {
            number: _Stream(
                source,
                (self.seed, number) if self.shuffle else None,
                self._readers_of(number, workers),
                self._reader[0],
                self.block_size,
            )
            for number, source in enumerate(self.sources)
            if not hasattr(source.rows, "__len__")
        }
        self._given = 0
        if self._pending is not None:
            self._restore(self._pending)
        rows = {number: stream.rows() for number, stream in self._streams.items()}
        while True:
            batch, offset = divmod(self._given, self.batch_size)
            batch = (batch * workers + worker_number) * self.world_size + self.rank
            ordinal = batch * self.batch_size + offset
            row = self._next(rows, *self.pattern.locate(ordinal))
            self._given += 1
            yield {**row, ORDINAL: ordinal}

    def _readers_of(self, source: int, workers: int) -> list[int]:
        """The readers in whose batches the source's turns fall; only these can share its rows."""
        batches = self.world_size * workers
        # a reader's rows are those of every `batches`-th batch, so of the sequence it sees what is congruent
        cycle = math.gcd(batches * self.batch_size, len(self.pattern))
        turns = {turn % cycle for turn, found in enumerate(self.pattern.sequence) if found == source}
        found = []
        for rank in range(self.world_size):
            for number in range(workers):
                first = (number * self.world_size + rank) * self.batch_size
                if any((first + offset) % cycle in turns for offset in range(min(cycle, self.batch_size))):
                    found.append(rank * workers + number)
        return found

    def _next(self, rows: Mapping[int, Iterator[tuple[str, Row]]], number: int, turn: int) -> Row:
        """The next row of a stream; of a source with a length the one whose turn it is, counted over all readers."""
        skipped: list[str] = []
        source = self.sources[number]
        while True:
            if number in rows:
                available = None
                name, row = next(rows[number])
            else:
                available = len(source.rows)
                _, index = row_at(available, turn, len(skipped), (self.seed, number) if self.shuffle else None)
                name, row = f"{source.name}[{index}]", source.rows[index]
            try:
                row = usable_row(row, self.tasks[number], name, self.check, self.size_multiple)
                return {**row, "skipped": skipped} if skipped else row
            except RowError as error:
                skipped.append(note_skipped(error, self.on_error, skipped, available))

    def state_dict(self) -> dict[str, Any]:
        """Where this reader is: after the row that it gave last. Numbers and lists only."""
        reader, readers = self._reader
        if self._pending is not None and not self._streams:
            return dict(self._pending)
        streams = {str(number): dict(stream.position) for number, stream in self._streams.items()}
        return {"reader": reader, "readers": readers, _GIVEN: self._given, "streams": streams}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Makes the next iteration begin after the row that `state_dict` was taken at."""
        self._pending = dict(state)
        self._streams = {}

    def _restore(self, state: Mapping[str, Any]) -> None:
        if (state["reader"], state["readers"]) != self._reader:
            raise ValueError(
                f"The position was saved by reader {state['reader']} of {state['readers']}, but this is reader "
                f"{self._reader[0]} of {self._reader[1]}; continue with the same number of processes and workers."
            )
        # without streams it was saved before the first row
        if state["streams"] and set(state["streams"]) != {str(number) for number in self._streams}:
            raise ValueError("The position was saved with other streams than there are; continue with the same data.")
        for number, position in state["streams"].items():
            self._streams[int(number)].position = dict(position)
        self._given = state[_GIVEN]
        self._pending = None


def _process() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


class _Stream:
    """A reader's rows of a streamed source, without end: shard by shard, in shuffled blocks."""

    def __init__(
        self, source: Source, keys: tuple[int, int] | None, readers: Sequence[int], reader: int, block_size: int
    ) -> None:
        self.source, self.keys, self.block_size = source, keys, block_size
        self.num_shards = source.rows.num_shards
        own = readers.index(reader) if reader in readers else 0  # else it is never asked
        self.shards = list(range(own, self.num_shards, len(readers))) or [own % self.num_shards]
        # readers beyond the number of shards share one, row by row
        self.turn = own // self.num_shards
        self.sharers = max(1, -(-(len(readers) - self.shards[0]) // self.num_shards))
        self.position = {"epoch": 0, "shard": 0, "block": 0, "row": 0}

    def rows(self) -> Iterator[tuple[str, Row]]:
        """Names and rows, from `position` on, which moves along."""
        position = self.position
        while True:
            whole, found = not any(position.values()), False
            for index in range(position["shard"], len(self.shards)):
                for row in self._shard(self.shards[self._order(index, len(self.shards))]):
                    found = True
                    yield row
                position.update(shard=index + 1, block=0, row=0)
            if whole and not found:
                raise ValueError(
                    f"The source '{self.source.name}' has no rows for one of its readers; use fewer workers."
                )
            position.update(epoch=position["epoch"] + 1, shard=0)

    def _shard(self, shard: int) -> Iterator[tuple[str, Row]]:
        position = self.position
        data = self.source.rows.shard(num_shards=self.num_shards, index=shard)
        # by blocks, not rows: iterating over rows would share the shard among workers once more
        for block in itertools.islice(data.iter(batch_size=self.block_size), position["block"], None):
            count = len(next(iter(block.values()), ()))
            first = position["block"] * self.block_size
            own = [row for row in range(count) if (first + row) % self.sharers == self.turn]
            for index in range(position["row"], len(own)):
                row = own[self._order(index, len(own), shard, position["block"])]
                position["row"] = index + 1
                name = f"{self.source.name}[shard {shard}, row {first + row}]"
                yield name, {key: values[row] for key, values in block.items() if values[row] is not None}
            position.update(block=position["block"] + 1, row=0)

    def _order(self, index: int, size: int, *keys: int) -> int:
        if self.keys is None:
            return index
        return permuted_index(index, size, *self.keys, self.position["epoch"], *keys)
