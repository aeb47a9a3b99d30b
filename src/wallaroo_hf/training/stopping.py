"""Ctrl-C during training: the step under way is finished and saved, so that the same command can go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

__all__ = ["StopWhenAsked"]

_SENTENCE = "Stopping after this step, which is then saved; Ctrl-C again stops at once and saves nothing."


class StopWhenAsked(TrainerCallback):
    """Ends a run that Ctrl-C (SIGINT) or SIGTERM asks to, after a checkpoint of the step under way.

    A context manager: what signals did before comes back when the block ends, and with the first of them, so that a second
    one does what it always did. Where several processes train, all stop after the same step if one was asked.

    Args:
        report: called with a sentence for people when a signal comes; in the signal's handler, so it must not go through
            buffers that the program was just writing to.
    """

    def __init__(self, report: Callable[[str], None] = lambda sentence: None) -> None:
        self.was_asked = False
        self._report = report
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # the only one that signals reach
            self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._give_back()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.was_asked = True
        self._give_back()
        self._report(_SENTENCE)

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Asks for a checkpoint and for an end, once somebody asked."""
        if self._anybody_was_asked(args.device):
            self.was_asked = True
            control.should_save = control.should_training_stop = True
        return control

    def _anybody_was_asked(self, device: torch.device) -> bool:
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return self.was_asked
        asked = torch.tensor(int(self.was_asked), device=device)
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
        return bool(asked)
