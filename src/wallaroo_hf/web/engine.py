"""Computes drawings and answers, in the worker's thread: both go on step by step, by turns."""

from collections.abc import Callable, Sequence

import torch

from ..families.abilities import Abilities
from ..families.attempts import Attempt
from ..families.contract import DrawingModel, DrawingProcessor
from ..families.prefixes import PrefixStore
from ..families.registry import abilities_of
from .answer_batches import AnswerBatches
from .batching import Job
from .drawing_rows import DrawingRows
from .requests import ANSWERING, DRAWING
from .worker import Over


class Engine:
    """A model at work; see [`wallaroo_hf.web.worker.Computer`].

    A step is one step of all drawings that are under way, and one forward of each batch of answers.

    Args:
        model, processor: a loaded checkpoint, on its device. Only one thread at a time may use them.
        window: codes of an image that a forward may decide, where the checkpoint has such a setting.
        max_rows: most drawings at once.
        on_step: called with the lane and how many of its images or answers a step took further.
        prefixes: where what was read of chats is kept; None = nowhere.

    Raises:
        ValueError: for a window that it cannot have.
    """

    def __init__(
        self,
        model: DrawingModel,
        processor: DrawingProcessor,
        window: int | str | None = None,
        max_rows: int = 8,
        on_step: Callable[[str, int], None] | None = None,
        prefixes: PrefixStore | None = None,
    ) -> None:
        self.model, self.processor, self.window = model, processor, window
        self.abilities: Abilities = abilities_of(model, processor)
        always = self.abilities.check_settings({"window": window})
        self._lanes: dict[str, DrawingRows | AnswerBatches] = {
            DRAWING: DrawingRows(model, processor, self.abilities, always, max_rows),
            ANSWERING: AnswerBatches(model, processor, prefixes if self.abilities.keeps_prefixes else None),
        }
        self._on_step = on_step

    @property
    def busy(self) -> bool:
        """Whether there is something to do."""
        return any(lane.busy for lane in self._lanes.values())

    def takes(self, lane: str) -> bool:
        """Whether more jobs of a lane can begin now.

        Args:
            lane: of the jobs.
        """
        return self._lanes[lane].takes_more

    def begin(self, jobs: Sequence[Job]) -> None:
        """Takes in jobs of one lane.

        Args:
            jobs: answers are of one group.
        """
        with torch.no_grad():
            self._lanes[jobs[0].lane].begin(jobs)

    def step(self) -> list[Over]:
        """A turn of each lane; what goes wrong in one that is nobody's in particular ends all of that lane."""
        over: list[Over] = []
        for name, lane in self._lanes.items():
            if not lane.busy:
                continue
            if self._on_step is not None:
                self._on_step(name, lane.num_rows)
            with Attempt() as attempt, torch.no_grad():
                over += lane.step()
            if attempt.error is not None:
                over += lane.abandon(attempt.error)
        return over
