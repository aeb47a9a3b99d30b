"""Drawings that come and go: [`ImageSession`], on which `draw` is written."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..common.drawing_sessions import GroupedSession
from ..families.contract import Follow, Step
from .drawing import DrawingArguments
from .streamers import ImageStreamer

__all__ = ["ImageSession"]


class CodeGroup:
    """Images that begin and go on together, code by code; see [`wallaroo_hf.common.drawing_sessions.DrawingGroup`].

    Args:
        model: draws.
        batch: the processor's tensors.
        copies: images per row.
        generators: one for all, or one per image.
        settings: see [`wallaroo_hf.families.contract.DrawingModel.draw`].
        follow: called with each row of each image when it is complete; False ends the group. None: nobody looks, which
            saves a look per code.
    """

    def __init__(
        self,
        model: Any,
        batch: Mapping[str, Any],
        copies: int,
        generators: Sequence[torch.Generator] | torch.Generator | None,
        settings: Mapping[str, Any],
        follow: Follow | None,
    ) -> None:
        self.model = model
        self.streamer: ImageStreamer | None = None
        if follow is not None:
            on_row = functools.partial(_tell, follow)
            self.streamer = ImageStreamer(model, None, on_row=on_row)
        arguments, sampling = DrawingArguments.read(settings, generators)
        kwargs = {**batch, **sampling, "streamer": self.streamer, "num_return_sequences": copies}
        self._run = model._begin_drawing(arguments, None, kwargs)
        self.grids = self._run.plan.grids  # (rows, columns) of each image
        self.tokens: torch.Tensor | None = None  # (images, T), when it is over
        self.was_ended = False

    @property
    def count(self) -> int:
        """How many images."""
        return len(self.grids)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.tokens is not None

    @property
    def complete(self) -> bool:
        """Whether it came to its end, or may still."""
        return not self.was_ended and (self.streamer is None or not self.streamer.stopped)

    def advance(self) -> bool:
        """One forward; returns whether there is more to come."""
        if self.tokens is None and not self._run.advance():
            self._finish()
        return self.tokens is None

    def end(self) -> None:
        """Ends it where it is."""
        if self.tokens is None:
            self.was_ended = True
            self._run.stop()
            self._finish()

    def pixels(self, image: int, is_whole: bool) -> torch.Tensor | None:
        """An image `(3, H, W)`, or the rows of it that are there; None before the first one."""
        if self.tokens is None:
            return None if self.streamer is None else self.streamer.pixels(image)
        # alone, so that equal codes are equal bytes: the image tokenizer rounds differently in a batch
        one = slice(image, image + 1)
        try:
            return self.model.decode_image_tokens(self.tokens[one], self.grids[one], allow_partial=not is_whole)[0]
        except ValueError:
            if is_whole:
                raise
            return None

    def native(self, image: int | None) -> torch.Tensor | None:
        """Ids `(T,)` of an image, or `(images, T)` of all; None before they are over."""
        return self.tokens if image is None or self.tokens is None else self.tokens[image]

    def _finish(self) -> None:
        output = self._run.finish()
        self.tokens = output if isinstance(output, torch.Tensor) else output.sequences


def _tell(follow: Follow, streamer: ImageStreamer, image: int, rows: int) -> bool:
    return follow(Step(image, rows, streamer.grid(image)[0], functools.partial(streamer.pixels, image))) is not False


class ImageSession(GroupedSession):
    """Drawings of one model that come and go; see [`wallaroo_hf.common.drawing_sessions.GroupedSession`].

    Args:
        model: draws.
        max_rows: most images at once.
        settings: those of drawings that are admitted without their own.
    """

    def __init__(self, model: Any, max_rows: int, settings: Mapping[str, Any]) -> None:
        super().__init__(max_rows, settings)
        self.model = model

    def begin_group(
        self,
        batch: Any,
        copies: int,
        generators: Sequence[torch.Generator] | torch.Generator | None,
        settings: Mapping[str, Any],
        follow: Follow | None,
    ) -> CodeGroup:
        """See [`CodeGroup`] for the arguments.

        Args:
            batch, copies, generators, settings, follow: of the group.
        """
        return CodeGroup(self.model, batch, copies, generators, settings, follow)

    def check_settings(self, settings: Mapping[str, Any], generator: torch.Generator | None) -> None:
        """Refuses settings that are none."""
        DrawingArguments.read(settings, generator)

    def join_rows(self, rows: Sequence[Any]) -> Any:
        """Left-padded."""
        return type(rows[0]).join(rows, self.model._pad_token_id({}))
