"""Rows of several sources in a fixed ratio, always in the same order for the same seed.

Position *i* of a mixture names its source and the row in it by arithmetic alone: there is nothing to store or to replay, so
training can continue at any position at once.
"""

import bisect
import itertools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch.utils.data import Dataset

from .training_rows import ORDINAL, SIZE_MULTIPLE, TASKS, Row, RowError, check_row, row_name

__all__ = ["Pattern", "RowOrigin", "Source", "TaskMixture", "permuted_index"]

logger = logging.getLogger(__name__)

_LONGEST_PATTERN = 10_000
_MOST_ATTEMPTS = 100
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Source:
    """Rows of one task.

    Attributes:
        rows: map-style rows (`len` and `[index]`), or a `datasets.IterableDataset`.
        name: for reports, of rows that have none.
        weight: share of the task's rows that come from here, relative to its other sources; None = its number of rows.
    """

    rows: Any
    name: str
    weight: float | None = None


@dataclass(frozen=True)
class RowOrigin:
    """Where one row of a mixture comes from: source, task, and which row in which pass over the source."""

    source: str
    task: str
    index: int
    epoch: int


class Pattern:
    """The order in which sources take turns: a short sequence, repeated, in which each has exactly its share.

    The turns of each source are spread as evenly as possible, so that any stretch of a mixture has nearly its ratio.

    Attributes:
        sequence: the number of the source at each position in it.
        counts: how often each source occurs in it.
    """

    def __init__(self, shares: Sequence[Fraction | float]) -> None:
        """Args: shares: non-negative, relative; approximated to 1 in 10,000 where they are no small fractions."""
        self.counts = _whole_shares(shares)
        turns = sorted(
            (Fraction(2 * turn + 1, 2 * count), source)
            for source, count in enumerate(self.counts)
            for turn in range(count)
        )
        self.sequence = [source for _, source in turns]
        seen = [0] * len(self.counts)
        self._earlier = []
        for source in self.sequence:
            self._earlier.append(seen[source])
            seen[source] += 1

    def __len__(self) -> int:
        return len(self.sequence)

    def locate(self, position: int) -> tuple[int, int]:
        """The source whose turn it is at a position, and how many turns it had before."""
        rounds, offset = divmod(position, len(self.sequence))
        source = self.sequence[offset]
        return source, rounds * self.counts[source] + self._earlier[offset]


def _whole_shares(shares: Sequence[Fraction | float]) -> list[int]:
    fractions = [share if isinstance(share, Fraction) else Fraction(str(share)) for share in shares]
    total = sum(fractions)
    if total <= 0 or min(fractions) < 0:
        raise ValueError(f"Shares are {[float(share) for share in fractions]}, but must be positive.")
    fractions = [share / total for share in fractions]
    length = math.lcm(*(share.denominator for share in fractions))
    if length <= _LONGEST_PATTERN:
        return [int(share * length) for share in fractions]
    counts = [round(share * _LONGEST_PATTERN) or int(share > 0) for share in fractions]
    return [count // math.gcd(*counts) for count in counts]


def permuted_index(position: int, size: int, *keys: int) -> int:
    """Where a position goes in the shuffled order of `size` things that `keys` choose.

    A Feistel network over the next power of four, walked until it falls inside: a permutation that needs no memory, however
    large the data set, and gives any position of it at once.
    """
    half = max(3, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    key = 0
    for part in keys:
        key = _mix(key ^ (part & _MASK))
    while True:
        left, right = position >> half, position & mask
        for turn in range(4):
            left, right = right, left ^ (_mix(right ^ key ^ (turn << 56)) & mask)
        position = (left << half) | right
        if position < size:
            return position


def _mix(value: int) -> int:
    """The finalizer of splitmix64: every bit of the result depends on every bit of the value."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def usable_row(
    row: Row, task: str, name: str, check: Callable[[Row], Row] | None, size_multiple: int = SIZE_MULTIPLE
) -> Row:
    """A row as a mixture gives it away: named, and checked as far as possible without opening its pictures.

    Args:
        row: as its source gives it; None entries count as absent.
        task: that it must be of.
        name: what errors call it, unless it has one.
        check: every row passes through it; may open pictures.
        size_multiple: see [`TaskMixture`].

    Raises:
        RowError: with the row's name, for rows that cannot be trained on or are of another task.
    """
    row = {key: value for key, value in row.items() if value is not None}
    row.setdefault("name", name)
    try:
        found = check_row(row, size_multiple=size_multiple)
        if found != task:
            raise RowError(f"It is of task '{found}', but stands among '{task}' rows.", "wrong_task")
        return row if check is None else check(row)
    except ValueError as error:
        reason = error.reason if isinstance(error, RowError) else "unusable_row"
        raise RowError(f"{row_name(row)}: {error}", reason) from error


class TaskMixture(Dataset):
    """A map-style data set of a given length that gives rows of several tasks in a fixed ratio.

    Row *i* is the same in every process and on every run. Read it in order (a sequential sampler): it is shuffled already,
    each source anew in every pass over it, and shuffling it again would break the ratio within batches.

    Args:
        sources: task -> its sources.
        ratio: task -> share of rows; 0 leaves a task out. Default: the tasks' numbers of rows.
        seed: of the order.
        length: rows in all; default: until every row was given at least once.
        shuffle: whether sources are shuffled.
        check: called with each row, returns the row to use instead (with its pictures decoded, say); raises `ValueError`
            for rows that cannot be used.
        on_error: what to do about a row that cannot be used: `"raise"`, or `"skip"`: the next of its source that can takes
            its place; it is logged as a warning, and the row that came instead lists it in `skipped`.
        sorted_within: in each stretch of so many positions (an optimizer step's rows, say) the sources stand one after the
            other, so that a step of several micro-batches pads less, as rows of a task are of like length. The stretch
            has the same rows in any case.
        size_multiple: of which the height and width of rows are multiples, in pixels.

    Raises:
        ValueError: for a ratio without rows, or that names other tasks than there are.
    """

    # `WallarooTrainer` reads such a data set in order.
    in_training_order = True

    def __init__(
        self,
        sources: Mapping[str, Sequence[Source]],
        ratio: Mapping[str, float] | None = None,
        seed: int = 0,
        length: int | None = None,
        shuffle: bool = True,
        check: Callable[[Row], Row] | None = None,
        on_error: str = "raise",
        sorted_within: int = 1,
        size_multiple: int = SIZE_MULTIPLE,
    ) -> None:
        if sorted_within < 1:
            raise ValueError(f"`sorted_within` is {sorted_within}, but must be at least 1 (1 = as they come).")
        self.sorted_within, self.size_multiple = sorted_within, size_multiple
        taking_part = {task for task in sources if ratio is None or ratio.get(task)}
        merged = {task: _merged(task, found) if task in taking_part else found for task, found in sources.items()}
        weighted = weigh(merged, ratio)
        self.seed, self.shuffle, self.check, self.on_error = seed, shuffle, check, known_policy(on_error)
        self.tasks = [task for task, _, _ in weighted]
        self.sources = [source for _, source, _ in weighted]
        self.pattern = Pattern([share for _, _, share in weighted])
        for source in self.sources:
            if not len(source.rows):
                raise ValueError(f"The source '{source.name}' has no rows; remove it, or set its ratio to 0.")
        rounds = max(Fraction(len(s.rows), n) for s, n in zip(self.sources, self.pattern.counts, strict=True) if n)
        self.length = math.ceil(rounds * len(self.pattern)) if length is None else length

    def __len__(self) -> int:
        return self.length

    def locate(self, position: int) -> RowOrigin:
        """Which row stands at a position.

        Raises:
            IndexError: outside the length.
        """
        return self._locate(self._turn(position), 0)[0]

    def _turn(self, position: int) -> int:
        """The turn, in the order of the pattern, whose row stands at a position."""
        if not -self.length <= position < self.length:
            raise IndexError(f"Position {position} is outside a mixture of {self.length} rows.")
        position %= self.length
        if self.sorted_within == 1:
            return position
        start = position - position % self.sorted_within
        turns = range(start, min(start + self.sorted_within, self.length))
        return sorted(turns, key=lambda turn: self.pattern.locate(turn)[0])[position - start]

    def _locate(self, turn_in_all: int, attempt: int) -> tuple[RowOrigin, Source]:
        number, turn = self.pattern.locate(turn_in_all)
        source = self.sources[number]
        epoch, index = row_at(len(source.rows), turn, attempt, (self.seed, number) if self.shuffle else None)
        return RowOrigin(source.name, self.tasks[number], index, epoch), source

    def __getitem__(self, position: int) -> Row:
        skipped: list[str] = []
        turn = self._turn(position)
        while True:
            origin, source = self._locate(turn, len(skipped))
            try:
                name = f"{origin.source}[{origin.index}]"
                row = usable_row(source.rows[origin.index], origin.task, name, self.check, self.size_multiple)
                row = {**row, ORDINAL: turn}
                return {**row, "skipped": skipped} if skipped else row
            except RowError as error:
                skipped.append(note_skipped(error, self.on_error, skipped, len(source.rows)))


def row_at(size: int, turn: int, attempt: int, keys: tuple[int, int] | None) -> tuple[int, int]:
    """Which row a source of `size` rows gives at its turn, as `(pass over it, index)`.

    Args:
        attempt: how many rows turned out to be unusable before.
        keys: of the shuffled order; None = in order.
    """
    epoch, index = divmod(turn, size)
    index = (index + attempt) % size
    return epoch, index if keys is None else permuted_index(index, size, *keys, epoch)


def note_skipped(error: RowError, on_error: str, skipped: Sequence[str], available: int | None) -> str:
    """Says that a row is left out and returns the words, unless nothing may be, or nothing else would be left.

    Args:
        error: what is wrong with the row.
        on_error: `"raise"` or `"skip"`.
        skipped: those left out directly before.
        available: rows of the source; None = not known.

    Raises:
        RowError: under `"raise"`, and after 100 rows in a row.
    """
    if on_error == "raise":
        raise error
    if len(skipped) + 1 >= min(_MOST_ATTEMPTS, available or _MOST_ATTEMPTS):
        raise RowError(
            f"{len(skipped) + 1} rows in a row cannot be used; the last is {error}", error.reason
        ) from error
    logger.warning("Row skipped: %s", error)
    return str(error)


def known_policy(on_error: str) -> str:
    """`on_error` if it is a policy that there is.

    Raises:
        ValueError: if it is not.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"`on_error` is {on_error!r}, but must be 'raise' or 'skip'.")
    return on_error


def _merged(task: str, sources: Sequence[Source]) -> list[Source]:
    """Sources of a task without weights as one, in which every row counts the same."""
    unweighted = [source for source in sources if source.weight is None]
    if len(sources) == 1 or not unweighted:
        return list(sources)
    if len(unweighted) < len(sources):
        raise ValueError(
            f"Some sources of task '{task}' have a weight, but '{unweighted[0].name}' has none; give it to all or none."
        )
    return [Source(_Joined(unweighted), task)]


class _Joined(Dataset):
    """Map-style sources one after the other; rows without a name are called after their own source."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = list(sources)
        self.ends = list(itertools.accumulate(len(source.rows) for source in self.sources))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> Row:
        number = bisect.bisect_right(self.ends, index)
        source = self.sources[number]
        own = index - (self.ends[number - 1] if number else 0)
        row = {key: value for key, value in source.rows[own].items() if value is not None}
        return {"name": f"{source.name}[{own}]", **row}


def weigh(
    sources: Mapping[str, Sequence[Source]], ratio: Mapping[str, float] | None
) -> list[tuple[str, Source, Fraction]]:
    """The sources that take part, as `(task, source, share of all rows)`.

    Raises:
        ValueError: for unknown tasks, missing weights or ratios, or a share without rows.
    """
    unknown = [task for task in (*sources, *(ratio or ())) if task not in TASKS]
    if unknown:
        raise ValueError(f"The task {unknown[0]!r} is not known; tasks are {', '.join(TASKS)}.")
    present = [task for task in sources if sources[task]]
    if ratio is None:
        ratio = (
            {task: sum(len(source.rows) for source in sources[task]) for task in present} if len(present) > 1 else {}
        )
        ratio = ratio or dict.fromkeys(present, 1)
    for task in present:
        if task not in ratio:
            raise ValueError(
                f"There are {task} rows, but the ratio does not name them; set `{task}` (0 leaves them out)."
            )
    for task, share in ratio.items():
        if share and task not in present:
            raise ValueError(f"The ratio asks for {task} rows, but there are none; add some, or set `{task}` to 0.")
    found = []
    for task in present:
        weights = [1 if source.weight is None else source.weight for source in sources[task]]
        total = sum(Fraction(str(weight)) for weight in weights)
        for source, weight in zip(sources[task], weights, strict=True):
            if ratio[task] and weight:
                found.append((task, source, Fraction(str(ratio[task])) * Fraction(str(weight)) / total))
    if not found:
        raise ValueError(f"The ratio {dict(ratio)} leaves no rows to train on.")
    return found
