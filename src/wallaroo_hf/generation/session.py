"""Drawings that come and go: [`ImageSession`], on which `draw` is written."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..families.contract import DrawnImages, Follow, Step
from .drawing import DrawingArguments
from .streamers import ImageStreamer

__all__ = ["ImageSession"]


class DrawingGroup:
    """Images that begin together and go on together, forward by forward.

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

    def _finish(self) -> None:
        output = self._run.finish()
        self.tokens = output if isinstance(output, torch.Tensor) else output.sequences


def _tell(follow: Follow, streamer: ImageStreamer, image: int, rows: int) -> bool:
    return follow(Step(image, rows, streamer.grid(image)[0], functools.partial(streamer.pixels, image))) is not False


class ImageSession:
    """Drawings of one model that come and go; see [`wallaroo_hf.families.contract.DrawingSession`].

    Rows of equal settings that are admitted between two steps begin together: they share a prefill, and their forwards
    from then on. A step is one forward of each such group.

    Args:
        model: draws.
        max_rows: most images at once.
        settings: those of drawings that are admitted without their own.
    """

    def __init__(self, model: Any, max_rows: int, settings: Mapping[str, Any]) -> None:
        self.model, self.max_rows, self.settings = model, max_rows, dict(settings)
        self._waiting: dict[int, tuple[Any, torch.Generator | None, dict[str, Any]]] = {}
        self._places: dict[int, tuple[DrawingGroup, int]] = {}  # of each drawing: its group and its image there
        self._cancelled: set[int] = set()
        self._next = 0
        self._steps: list[Step] = []  # what the step that runs has to report

    @property
    def under_way(self) -> int:
        """Images that are drawn or wait to begin."""
        going = [number for number, (group, _) in self._places.items() if group.tokens is None]
        return len(self._waiting) + len(set(going) - self._cancelled)

    def admit(
        self, row: Any, generator: torch.Generator | None = None, settings: Mapping[str, Any] | None = None
    ) -> int:
        """Takes in a row that the processor prepared (a batch of one); it begins with the next step.

        Args:
            row: of `generation_mode="image"`, on the model's device.
            generator: of its noise.
            settings: see `draw`; they win over the session's.

        Returns:
            The drawing's number.

        Raises:
            ValueError: if there is no room, for a batch of several rows, or for settings that are none.
        """
        if self.under_way >= self.max_rows:
            raise ValueError(f"The session draws {self.max_rows} images at once; wait, or cancel one.")
        if len(row["input_ids"]) != 1:
            raise ValueError(f"A batch of {len(row['input_ids'])} rows was given; admit them one by one.")
        chosen = {**self.settings, **(settings or {})}
        DrawingArguments.read(chosen, generator)  # what cannot be is refused here, not in a step that is others' too
        self._waiting[self._next] = (row, generator, chosen)
        self._next += 1
        return self._next - 1

    def step(self) -> list[Step]:
        """One forward of each group that is under way: the images that came further, by their drawings' numbers."""
        self._steps = []
        self._begin()
        for group in {id(group): group for group, _ in self._places.values()}.values():
            group.advance()
        return self._steps

    def is_over(self, drawing: int) -> bool:
        """Whether a drawing can be taken.

        Raises:
            ValueError: for a number that is none.
        """
        if drawing in self._waiting:
            return False
        return drawing in self._cancelled or self._place(drawing)[0].tokens is not None

    def cancel(self, drawing: int) -> None:
        """Ends a drawing; the rows that are there can be taken. Others of its group go on.

        Raises:
            ValueError: for a number that is none.
        """
        if self._waiting.pop(drawing, None) is None:
            group, _ = self._place(drawing)
            if group.tokens is not None:
                return
            self._cancelled.add(drawing)
            if {number for number, (other, _) in self._places.items() if other is group} <= self._cancelled:
                group.end()
        else:
            self._cancelled.add(drawing)

    def take(self, drawing: int) -> DrawnImages:
        """What a drawing that is over has become; the session forgets it.

        Raises:
            ValueError: for a number that is none, or a drawing that is under way.
        """
        if not self.is_over(drawing):
            raise ValueError(f"Drawing {drawing} is not over; step on, or cancel it.")
        was_cancelled = drawing in self._cancelled
        self._cancelled.discard(drawing)
        if drawing not in self._places:  # it never began
            return DrawnImages([None], False, None)
        group, image = self._places.pop(drawing)
        is_whole = group.complete and not was_cancelled
        return DrawnImages(
            [group.pixels(image, is_whole)], is_whole, None if group.tokens is None else group.tokens[image]
        )

    def draw(
        self,
        batch: Mapping[str, Any],
        copies: int,
        generators: Sequence[torch.Generator] | torch.Generator | None,
        follow: Follow | None,
    ) -> DrawnImages:
        """Draws a whole batch as one group, with the session's settings; see [`DrawingGroup`].

        Args:
            batch: prompts as the processor prepares them.
            copies: drawings per prompt.
            generators: one per drawing, or one for all; None = torch's own.
            follow: is called with each step of each drawing; returning False ends them all.
        """
        group = DrawingGroup(self.model, batch, copies, generators, self.settings, follow)
        while group.advance():
            pass
        images = range(len(group.grids))
        return DrawnImages([group.pixels(image, group.complete) for image in images], group.complete, group.tokens)

    def _begin(self) -> None:
        """Groups of the rows that wait, by their settings."""
        while self._waiting:
            settings = next(iter(self._waiting.values()))[2]
            chosen = {number: one for number, one in self._waiting.items() if one[2] == settings}
            self._waiting = {number: one for number, one in self._waiting.items() if number not in chosen}
            rows = [row for row, _, _ in chosen.values()]
            batch = rows[0] if len(rows) == 1 else type(rows[0]).join(rows, self.model._pad_token_id({}))
            generators: Any = [generator for _, generator, _ in chosen.values()]
            numbers = list(chosen)
            follow = functools.partial(self._note, numbers)
            group = DrawingGroup(self.model, batch, 1, generators, settings, follow)
            self._places |= {number: (group, image) for image, number in enumerate(numbers)}

    def _note(self, numbers: Sequence[int], step: Step) -> None:
        if numbers[step.image] not in self._cancelled:
            self._steps.append(Step(numbers[step.image], step.done, step.total, step.preview))

    def _place(self, drawing: int) -> tuple[DrawingGroup, int]:
        if drawing not in self._places:
            raise ValueError(f"There is no drawing {drawing} in this session.")
        return self._places[drawing]
