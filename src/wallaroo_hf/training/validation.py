"""Checking rows before they are trained on: every broken one is counted and named, none silently left out."""

import itertools
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
from rich.table import Table

from .data.training_rows import REASONS, SIZE_MULTIPLE, TASKS, Row, RowError, check_row, row_name, row_task
from .data.worker_threads import in_order
from .pictures import check_picture
from .row_videos import check_video

__all__ = ["Problem", "TaskCount", "ValidationReport", "valid_rows", "validate_rows"]

_NAMED = 5  # rows of one kind of problem that a report names
UNKNOWN = "unknown"


@dataclass
class Problem:
    """Rows of one task that share a reason: how many, and the first few as `(name, what is wrong)`."""

    count: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)

    def add(self, count: int, examples: Iterable[tuple[str, str]]) -> None:
        """Counts further rows."""
        self.count += count
        self.examples = [*self.examples, *examples][:_NAMED]


@dataclass
class TaskCount:
    """Good rows of a task; with a `measure` also their tokens, and the longest row."""

    rows: int = 0
    tokens: int = 0
    longest: int = 0
    longest_name: str = ""

    def add(self, rows: int, tokens: int, longest: int, name: str) -> None:
        """Counts further rows.

        Args:
            rows: how many.
            tokens: of all of them.
            longest: tokens of the longest.
            name: of that one.
        """
        self.rows += rows
        self.tokens += tokens
        if longest > self.longest:
            self.longest, self.longest_name = longest, name


@dataclass
class ValidationReport:
    """What was found in rows.

    Attributes:
        total: rows that were looked at.
        tasks: task -> its good rows.
        problems: task (or `"unknown"`) -> reason (a key of `training_rows.REASONS`) -> rows.
        broken: indices of the broken rows, for `rows.select`.
    """

    total: int = 0
    tasks: dict[str, TaskCount] = field(default_factory=dict)
    problems: dict[str, dict[str, Problem]] = field(default_factory=dict)
    broken: list[int] = field(default_factory=list)

    @property
    def num_broken(self) -> int:
        """Rows that cannot be trained on."""
        return sum(problem.count for found in self.problems.values() for problem in found.values())

    def count(self, task: str, name: str, length: int | None = None) -> None:
        """Counts a good row of so many tokens."""
        self.total += 1
        self.tasks.setdefault(task, TaskCount()).add(1, length or 0, length or 0, name)

    def note(self, task: str, error: ValueError, name: str, index: int) -> None:
        """Counts a broken row.

        Args:
            task: of the row, or `"unknown"`.
            error: what is wrong with it.
            name: what the report calls it.
            index: its index among the rows.
        """
        reason = error.reason if isinstance(error, RowError) else "unusable_row"
        self.total += 1
        self.problems.setdefault(task, {}).setdefault(reason, Problem()).add(1, [(name, str(error))])
        self.broken.append(index)

    def merge(self, other: "ValidationReport") -> None:
        """Adds what was found in the rows that follow."""
        self.broken += [self.total + index for index in other.broken]
        self.total += other.total
        for task, count in other.tasks.items():
            own = self.tasks.setdefault(task, TaskCount())
            own.add(count.rows, count.tokens, count.longest, count.longest_name)
        for task, found in other.problems.items():
            for reason, problem in found.items():
                mine = self.problems.setdefault(task, {}).setdefault(reason, Problem())
                mine.add(problem.count, problem.examples)

    def summary(self) -> str:
        """One sentence."""
        good = ", ".join(f"{count.rows:,} {task}" for task, count in self._by_task(self.tasks)) or "none"
        return f"{self.total:,} rows: {good}; {self.num_broken:,} broken."

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data."""
        return {
            "total": self.total,
            "broken": self.num_broken,
            "tasks": {task: vars(count) for task, count in self._by_task(self.tasks)},
            "problems": {
                task: {reason: vars(problem) for reason, problem in found.items()}
                for task, found in self._by_task(self.problems)
            },
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ValidationReport":
        """Reads what `as_dict` gave; the indices of broken rows are not in it."""
        report = cls(total=data["total"])
        report.tasks = {task: TaskCount(**count) for task, count in data["tasks"].items()}
        for task, found in data["problems"].items():
            for reason, problem in found.items():
                examples = [(str(name), str(text)) for name, text in problem["examples"]]
                report.problems.setdefault(task, {})[reason] = Problem(problem["count"], examples)
        return report

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(self.as_dict(), ensure_ascii=False, indent=2)

    def __rich__(self) -> Group:
        """For the terminal: the summary, good rows by task, broken ones by task and reason with the first names."""
        good = Table()
        for name in ("task", "rows", "tokens a row", "longest"):
            good.add_column(name, justify="left" if name == "task" else "right")
        for task, count in self._by_task(self.tasks):
            mean = f"{count.tokens / count.rows:,.0f}" if count.tokens else "-"
            good.add_row(
                task, f"{count.rows:,}", mean, f"{count.longest:,} ({count.longest_name})" if count.longest else "-"
            )
        if not self.problems:
            return Group(self.summary(), good)
        bad = Table(title="Broken rows", title_justify="left", show_lines=True)
        for name in ("task", "reason", "rows", "the first of them"):
            bad.add_column(name, overflow="fold")
        for task, found in self._by_task(self.problems):
            for reason, problem in sorted(found.items(), key=lambda item: -item[1].count):
                examples = "\n".join(f"{name}: {text}" for name, text in problem.examples)
                bad.add_row(task, f"{reason}\n({REASONS.get(reason, '')})", f"{problem.count:,}", examples)
        return Group(self.summary(), good, bad)

    @staticmethod
    def _by_task(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
        order = [*TASKS, *sorted(set(found) - set(TASKS))]
        return [(task, found[task]) for task in order if task in found]


def validate_rows(
    rows: Iterable[Row],
    measure: Callable[[Row], int] | None = None,
    max_length: int | None = None,
    *,
    tasks: tuple[str, ...] = TASKS,
    size_multiple: int = SIZE_MULTIPLE,
    decode: bool = True,
    limit: int | None = None,
    num_workers: int = 0,
    progress: Callable[[int], None] | None = None,
) -> ValidationReport:
    """Looks at every row and reports what was found.

    Args:
        rows: rows, read one after the other.
        measure: tokens of a row, as the collator will make them; its `ValueError`s count as `"unusable_row"`.
        max_length: the most tokens a row may have.
        tasks: the tasks that can be trained.
        size_multiple: of which the height and width of rows are multiples, in pixels.
        decode: whether pictures are decoded whole, which finds all damage, or only their headers read.
        limit: look at the first so many rows only.
        num_workers: threads that open pictures; 0 = this one.
        progress: called with the number of rows done after each.
    """
    report = ValidationReport()
    done = None if progress is None else (lambda index: progress(index + 1))
    checked = valid_rows(
        itertools.islice(rows, limit),
        report,
        "skip",
        measure,
        max_length,
        tasks=tasks,
        size_multiple=size_multiple,
        decode=decode,
        num_workers=num_workers,
        done=done,
    )
    deque(checked, maxlen=0)
    return report


def valid_rows(
    rows: Iterable[Row],
    report: ValidationReport,
    on_error: str = "skip",
    measure: Callable[[Row], int] | None = None,
    max_length: int | None = None,
    *,
    tasks: tuple[str, ...] = TASKS,
    size_multiple: int = SIZE_MULTIPLE,
    decode: bool = True,
    num_workers: int = 0,
    done: Callable[[int], None] | None = None,
) -> Iterator[Row]:
    """Yields the good rows in order, and counts and names all of them in `report`.

    Args:
        on_error: `"skip"` leaves broken rows out; `"raise"` stops at the first.
        done: called with the index of each row after it was looked at.
        others: as for [`validate_rows`].

    Raises:
        RowError: the first broken row's, with its name, under `"raise"`.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"`on_error` is {on_error!r}, but must be 'raise' or 'skip'.")

    def look(row: Row) -> None:
        check_row(row, tasks, size_multiple)
        for picture in row.get("images") or ():
            if picture is not None:  # one that is encoded already
                check_picture(picture, decode)
        for video in row.get("videos") or ():
            check_video(video, decode)

    for index, (row, error) in enumerate(in_order(look, rows, num_workers)):
        name = row_name(row, index)
        length = None
        if error is None and measure is not None:
            # here, not in the threads: fast tokenizers must not be shared by them
            length, error = _measured(row, measure, max_length)
        if error is None:
            report.count(row_task(row), name, length)
            yield row
        else:
            report.note(task_or_unknown(row), error, name, index)
            if on_error == "raise":
                raise RowError(f"{name}: {error}", getattr(error, "reason", "unusable_row")) from error
        if done is not None:
            done(index)


def _measured(row: Row, measure: Callable[[Row], int], max_length: int | None) -> tuple[int | None, ValueError | None]:
    try:
        length = measure(row)
    except ValueError as error:
        return None, error
    if max_length is not None and length > max_length:
        return length, RowError(f"It has {length:,} tokens, but `max_length` is {max_length:,}.", "too_long")
    return length, None


def task_or_unknown(row: Row) -> str:
    """The task of a row for reports, whatever is wrong with it: its own, else the one that it was declared to be."""
    try:
        return row_task(row)
    except RowError:
        declared = row.get("task")
        return declared if declared in TASKS else UNKNOWN
