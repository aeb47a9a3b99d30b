"""Drawings that come and go: [`ImageSession`], on which `draw` is written."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch

from ..common.drawing_sessions import DrawingGroup, GroupedSession
from ..families.attempts import Attempt
from ..families.contract import Follow, Step
from .drawing import DrawingArguments
from .joint_rows import JointRows
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
        self.run = model._begin_drawing(arguments, None, kwargs)
        self.grids = self.run.plan.grids  # (rows, columns) of each image
        self._left: dict[int, torch.Tensor] = {}  # ids `(T,)` of images, as they were when nobody waited any more
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
        if self.tokens is None and not self.run.advance():
            self.finish()
        return self.tokens is None

    def leave(self, image: int) -> None:
        """Nobody waits for an image any more, and what comes of it from now on is nothing."""
        self._left[image] = self.run.delivery.so_far[image].clone()

    def end(self) -> None:
        """Ends it where it is."""
        if self.tokens is None:
            self.was_ended = True
            self.run.stop()
            self.finish()

    def pixels(self, image: int, is_whole: bool) -> torch.Tensor | None:
        """An image `(3, H, W)`, or the rows of it that are there; None before the first one."""
        ids = self.native(image)
        if ids is None:
            return None if self.streamer is None else self.streamer.pixels(image)
        # alone, so that equal codes are equal bytes: the image tokenizer rounds differently in a batch
        grid = self.grids[image : image + 1]
        try:
            return self.model.decode_image_tokens(ids[None], grid, allow_partial=not is_whole)[0]
        except ValueError:
            if is_whole:
                raise
            return None

    def native(self, image: int | None) -> torch.Tensor | None:
        """Ids `(T,)` of an image, or `(images, T)` of all; None before they are over."""
        if image in self._left:
            return self._left[image]
        return self.tokens if image is None or self.tokens is None else self.tokens[image]

    def finish(self) -> None:
        """Takes what there is, of a run that is over."""
        output = self.run.finish()
        self.tokens = output if isinstance(output, torch.Tensor) else output.sequences


def _tell(follow: Follow, streamer: ImageStreamer, image: int, rows: int) -> bool:
    return follow(Step(image, rows, streamer.grid(image)[0], functools.partial(streamer.pixels, image))) is not False


class ImageSession(GroupedSession):
    """Drawings of one model that come and go; see [`wallaroo_hf.common.drawing_sessions.GroupedSession`].

    Those that are drawn code by code share their forwards, whatever their sizes, prompts, guidance and progress; see
    [`JointRows`]. Others (windows, compiled decoding, static caches, flash attention) share them with what began with them.
    """

    group_form = CodeGroup

    def __init__(self, model: Any, max_rows: int, settings: Mapping[str, Any]) -> None:
        super().__init__(model, max_rows, settings)
        self._joint = JointRows(model)

    def read_settings(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """As they are; groups read them together with their generators."""
        DrawingArguments.read(settings, None)
        return settings

    @property
    def pad_token_id(self) -> int:
        """The tokenizer's."""
        return self.model._pad_token_id({})

    def kind(self, row: Any) -> Hashable:
        """The size: images of one size end together."""
        return tuple(row["target_grid_hw"][0].tolist())

    def begun(self, group: Any) -> None:
        """Its rows join the others'."""
        if self._joint.takes(group.run):
            self._joint.join(group.run)

    def turns(self, groups: Sequence[Any]) -> list[tuple[Sequence[DrawingGroup], Callable[[], Any]]]:
        """One forward for all that share it, and one for each other group."""
        joint: list[Any] = []
        if any(group.run in self._joint for group in groups):  # those that begin just now go along with them
            everyone = {id(group): group for group, _ in self._places.values()}
            joint = [group for group in everyone.values() if group.run in self._joint]  # type: ignore[attr-defined]
        others = [group for group in groups if group.run not in self._joint]
        return [*([(joint, functools.partial(self._advance, joint))] if joint else []), *super().turns(others)]

    def left(self, group: Any, image: int) -> None:
        """Its rows are free."""
        if group.run in self._joint:
            group.leave(image)
            self._joint.leave(group.run, image)

    def _advance(self, groups: Sequence[CodeGroup]) -> None:
        failed = {id(run): error for run, error in self._joint.step()}
        for group in groups:
            if id(group.run) in failed:
                self._fail([group], failed[id(group.run)])
            elif group.run not in self._joint:
                with Attempt() as attempt:
                    group.finish()
                if attempt.error is not None:
                    self._fail([group], attempt.error)
