"""How far training is, in the command line: a bar for who watches, plain lines for a file."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from time import monotonic
from types import TracebackType
from typing import Any, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


def say_at_once(sentence: str) -> None:
    """Writes a line on standard error from a signal's handler, past all buffers."""
    os.write(2, f"\n{sentence}\n".encode())


class StepDisplay:
    """A bar on standard error, or, where that or standard output goes into a file, a plain line there every so often.

    A context manager.

    Args:
        total: steps, or None until they are known.
        what: the word before the bar.
    """

    def __init__(self, total: int | None, what: str = "Training") -> None:
        console = Console(stderr=True)
        self.bar = Progress(
            *(TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")),
            *(TimeElapsedColumn(), TimeRemainingColumn()),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=total)
        self.total = total
        self.begun = monotonic()
        self.writes_lines = not (console.is_terminal and sys.stdout.isatty())
        self.to_stderr = not console.is_terminal

    def __enter__(self) -> Self:
        self.bar.start()
        self.begun = monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.stop()

    def begin(self, total: int, done: int, visible: bool = True) -> None:
        """Where it begins, and how far it goes.

        Args:
            total: steps.
            done: of them, before.
            visible: whether this process shows anything.
        """
        self.total = total
        self.writes_lines = self.writes_lines and visible
        self.bar.update(self.task, total=total, completed=done, visible=visible)

    def step(self, done: int, words: str | None = None) -> None:
        """So many steps are done; `words` stand behind the bar."""
        self.bar.update(self.task, completed=done, description=words)

    def line(self, done: int, words: str) -> None:
        """Writes a plain line, where there is a file for it."""
        if self.writes_lines:
            elapsed = timedelta(seconds=int(monotonic() - self.begun))
            typer.echo(f"step {done} of {self.total}: {words} ({elapsed})", err=self.to_stderr)


class TrainingProgress(TrainerCallback):
    """A [`StepDisplay`] with the newest loss, in place of the trainer's own; a context manager.

    Args:
        total: steps, or None until training begins.
    """

    def __init__(self, total: int | None) -> None:
        self.display = StepDisplay(total)

    def __enter__(self) -> Self:
        self.display.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.display.__exit__(kind, error, traceback)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Where it begins, and how far it goes."""
        self.display.begin(state.max_steps, state.global_step, state.is_world_process_zero)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """One step further."""
        self.display.step(state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Shows the loss."""
        if logs and "loss" in logs:
            words = f"loss {logs['loss']:.3f}"
            self.display.step(state.global_step, words)
            self.display.line(state.global_step, words)
