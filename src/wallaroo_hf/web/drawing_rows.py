"""Drawings that join while others are drawn, and leave when they are complete: [`DrawingRows`]."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..families.abilities import Abilities
from ..families.attempts import Attempt
from ..families.contract import DrawingModel, DrawingProcessor, DrawingSession, Step
from .batching import Job
from .quiet_pipeline import PreparedDrawing, QuietPipeline
from .requests import Drawing, Picture, Preview
from .worker import Over

__all__ = ["DrawingRows"]


class DrawingRows:
    """The drawings that are under way, each in a row of its own of the model's session.

    Args:
        model, processor: a loaded checkpoint, on its device.
        abilities: of the checkpoint.
        always: settings that all have.
        max_rows: most of them at once.
    """

    takes_more = True  # as many as there are places for

    def __init__(
        self,
        model: DrawingModel,
        processor: DrawingProcessor,
        abilities: Abilities,
        always: Mapping[str, Any],
        max_rows: int,
    ) -> None:
        self.model, self.processor, self.abilities = model, processor, abilities
        self._always, self._max_rows = dict(always), max_rows
        self._jobs: dict[int, tuple[Job, PreparedDrawing]] = {}  # by the numbers of their drawings
        self._over: list[Over] = []

    @functools.cached_property
    def pipe(self) -> QuietPipeline:
        """What prepares and finishes them; made when it is needed, for not every checkpoint draws."""
        return QuietPipeline(model=self.model, processor=self.processor, device=self.model.device)

    @functools.cached_property
    def _session(self) -> DrawingSession:
        return self.model.session(self._max_rows)

    @property
    def busy(self) -> bool:
        """Whether something is under way, or to be said."""
        return bool(self._jobs or self._over)

    @property
    def num_rows(self) -> int:
        """How many drawings are under way."""
        return len(self._jobs)

    def begin(self, jobs: Sequence[Job]) -> None:
        """Takes in drawings; one that cannot be prepared is over by itself."""
        self._free_rows()
        for job in jobs:
            if job.cancelled:
                self._over.append(Over([job]))
                continue
            with Attempt() as attempt:
                self._admit(job)
            if attempt.error is not None:
                self._over.append(Over([job], attempt.error))

    def step(self) -> list[Over]:
        """One step of all drawings; those that are complete go out."""
        self._free_rows()
        for step in self._session.step() if self._jobs else ():
            with Attempt() as attempt:
                self._show(step)
            if attempt.error is not None:
                self._give_up(step.image, attempt.error)
        failed: dict[int, tuple[Exception, list[Job]]] = {}
        for number in [number for number in self._jobs if self._session.is_over(number)]:
            job, prepared = self._jobs.pop(number)
            with Attempt() as attempt:
                self._finish(number, job, prepared)
            if attempt.error is None:
                self._over.append(Over([job]))
            else:
                failed.setdefault(id(attempt.error), (attempt.error, []))[1].append(job)  # of one forward together
        over = [*self._over, *(Over(jobs, error) for error, jobs in failed.values())]
        self._over = []
        return over

    def abandon(self, error: Exception) -> list[Over]:
        """All of it is over; a new session begins."""
        jobs = [job for job, _ in self._jobs.values()]
        over, self._over, self._jobs = self._over, [], {}
        self.__dict__.pop("_session", None)
        return [*over, *([Over(jobs, error)] if jobs else [])]

    def _admit(self, job: Job) -> None:
        request: Drawing = job.request
        settings = request.settings
        height, width = (None, None) if settings.fits_source else settings.size
        prepared = self.pipe.prepare(
            request.prompt,
            request.source,
            request.mask,
            request.references,
            negative_prompt=request.negative_prompt if self.abilities.negative_prompt else None,
            height=height,
            width=width,
            **self._always,
            **dict(settings.values),
        )
        generator = torch.Generator().manual_seed(request.seed)
        number = self._session.admit(prepared.row, generator, prepared.settings)
        self._jobs[number] = job, prepared

    def _free_rows(self) -> None:
        """Of drawings that nobody waits for any more."""
        for number, (job, _) in list(self._jobs.items()):
            if job.cancelled:
                self._give_up(number)

    def _give_up(self, number: int, error: Exception | None = None) -> None:
        """Of a drawing that nobody waits for any more, or that cannot be shown."""
        job, _ = self._jobs.pop(number)
        with Attempt() as attempt:
            self._session.cancel(number)
            self._session.take(number)  # so that the session forgets it
        self._over.append(Over([job], error or attempt.error))

    def _show(self, step: Step) -> None:
        """A preview, where one is due."""
        if step.image not in self._jobs:
            return
        job, prepared = self._jobs[step.image]
        due = preview_steps(step.total, job.request.num_previews)
        if step.done in due:
            image = self.pipe.look_at(step, prepared)
            if image is not None:
                job.emit(Preview(image, due.index(step.done)))

    def _finish(self, number: int, job: Job, prepared: PreparedDrawing) -> None:
        drawn = self._session.take(number)
        image = self.pipe.finish(drawn, prepared) if drawn.complete else None
        if image is not None:
            job.emit(Picture(image, self.abilities.image_tokens(*job.request.settings.size)))


def preview_steps(num_steps: int, num_previews: int) -> list[int]:
    """After how many steps of an image a preview is due: evenly spread, before the end.

    Args:
        num_steps: of the image.
        num_previews: most of them.
    """
    return sorted({(k + 1) * num_steps // (num_previews + 1) for k in range(num_previews)} - {0, num_steps})
