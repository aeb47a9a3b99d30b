"""Computes batches of drawings and answers, in the worker's thread."""

import functools
from collections.abc import Sequence
from typing import Any

import torch

from ..families.abilities import Abilities
from ..families.contract import DrawingModel, DrawingProcessor
from ..families.registry import abilities_of
from .answer_writers import AnswersListener
from .batching import Job
from .quiet_pipeline import QuietPipeline
from .requests import Answer, Drawing, Picture, Preview


class Engine:
    """A model at work.

    Args:
        model, processor: a loaded checkpoint, on its device. Only one thread may call [`~Engine.run`].
        window: codes of an image that a forward may decide, where the checkpoint has such a setting.

    Raises:
        ValueError: for a window that it cannot have.
    """

    def __init__(self, model: DrawingModel, processor: DrawingProcessor, window: int | str | None = None) -> None:
        self.model, self.processor, self.window = model, processor, window
        self.abilities: Abilities = abilities_of(model, processor)
        self._always = self.abilities.check_settings({"window": window})

    @functools.cached_property
    def _pipe(self) -> QuietPipeline:
        return QuietPipeline(model=self.model, processor=self.processor, device=self.model.device)

    def run(self, jobs: Sequence[Job]) -> None:
        """Computes jobs of one group and reports what comes out through them.

        A batch ends early when all of its jobs are cancelled.
        """
        if isinstance(jobs[0].request, Drawing):
            self._draw(jobs)
        else:
            self._answer(jobs)

    def _draw(self, jobs: Sequence[Job]) -> None:
        requests: list[Drawing] = [job.request for job in jobs]
        settings = requests[0].settings
        height, width = (None, None) if settings.fits_source else settings.size

        def on_step(_: Any, step: int, num_steps: int, details: dict[str, Any]) -> bool:
            job = jobs[details["image"]]
            due = _preview_steps(num_steps, job.request.num_previews)
            if step + 1 in due and not job.cancelled:
                job.emit(Preview(details["preview"](), due.index(step + 1)))
            return not all(job.cancelled for job in jobs)

        negative = [request.negative_prompt for request in requests]
        masks = [request.mask for request in requests]
        output = self._pipe(
            [request.prompt for request in requests],
            image=[request.source for request in requests],
            mask_image=masks if any(mask is not None for mask in masks) else None,
            negative_prompt=negative if self.abilities.negative_prompt else None,
            height=height,
            width=width,
            generator=[torch.Generator().manual_seed(request.seed) for request in requests],
            callback_on_step_end=on_step,
            **self._always,
            **dict(settings.values),
        )
        for job, image in zip(jobs, output.images, strict=True):
            if output.complete and image is not None:
                job.emit(Picture(image, self.abilities.image_tokens(*settings.size)))

    def _answer(self, jobs: Sequence[Job]) -> None:
        requests: list[Answer] = [job.request for job in jobs]
        first = requests[0]
        inputs = self.processor.collate([request.inputs for request in requests])
        self.model.converse(
            inputs.to(self.model.device, dtype=self.model.dtype),
            mode=first.mode,
            follow=AnswersListener(jobs, self.processor),
            generators=[torch.Generator().manual_seed(request.seed) for request in requests],
            max_new_tokens=[request.max_new_tokens for request in requests],
            text=first.settings,
            drawing=first.drawing,
        )


def _preview_steps(num_steps: int, num_previews: int) -> list[int]:
    """After how many steps of an image a preview is due: evenly spread, before the end."""
    return sorted({(k + 1) * num_steps // (num_previews + 1) for k in range(num_previews)} - {0, num_steps})
