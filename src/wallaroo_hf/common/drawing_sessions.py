"""Drawings that come and go, whatever draws them: those that begin together go on together."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

from ..families.contract import DrawnImages, Follow, Step

__all__ = ["DrawingGroup", "GroupedSession"]


class DrawingGroup(Protocol):
    """Images that begin together and go on together, forward by forward."""

    @property
    def count(self) -> int:
        """How many images."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""

    @property
    def complete(self) -> bool:
        """Whether it came to its end, or may still."""

    def advance(self) -> bool:
        """One forward; returns whether there is more to come."""

    def end(self) -> None:
        """Ends it where it is."""

    def pixels(self, image: int, is_whole: bool) -> torch.Tensor | None:
        """An image `(3, H, W)`, or what is there of it; None before there is anything."""

    def native(self, image: int | None) -> Any:
        """An image in the family's own form, or all of them."""


class GroupedSession(ABC):
    """See [`wallaroo_hf.families.contract.DrawingSession`]; a family says how a group begins.

    Rows of equal settings that are admitted between two steps begin together: they share a prefill, and their forwards
    from then on. A step is one forward of each such group.

    Args:
        max_rows: most images at once.
        settings: those of drawings that are admitted without their own.
    """

    def __init__(self, max_rows: int, settings: Mapping[str, Any]) -> None:
        self.max_rows, self.settings = max_rows, dict(settings)
        self._waiting: dict[int, tuple[Any, torch.Generator | None, dict[str, Any]]] = {}
        self._places: dict[int, tuple[DrawingGroup, int]] = {}  # of each drawing: its group and its image there
        self._cancelled: set[int] = set()
        self._next = 0
        self._steps: list[Step] = []  # what the step that runs has to report

    @abstractmethod
    def begin_group(
        self,
        batch: Any,
        copies: int,
        generators: Sequence[torch.Generator] | torch.Generator | None,
        settings: Mapping[str, Any],
        follow: Follow | None,
    ) -> DrawingGroup:
        """Images that begin together.

        Args:
            batch: the processor's tensors.
            copies: images per row.
            generators: one for all, or one per image.
            settings: of these drawings.
            follow: called with each step of each image; False ends the group. None: nobody looks.

        Raises:
            ValueError: for tensors or settings that cannot be.
        """

    @abstractmethod
    def check_settings(self, settings: Mapping[str, Any], generator: torch.Generator | None) -> None:
        """Refuses settings that cannot be, before a drawing is admitted.

        Raises:
            ValueError: in one sentence.
        """

    @abstractmethod
    def join_rows(self, rows: Sequence[Any]) -> Any:
        """Several prepared rows as one batch."""

    @property
    def under_way(self) -> int:
        """Images that are drawn or wait to begin."""
        going = [number for number, (group, _) in self._places.items() if not group.is_over]
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
        self.check_settings(chosen, generator)  # here, not in a step that is others' too
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
        return drawing in self._cancelled or self._place(drawing)[0].is_over

    def cancel(self, drawing: int) -> None:
        """Ends a drawing; the rows that are there can be taken. Others of its group go on.

        Raises:
            ValueError: for a number that is none.
        """
        if self._waiting.pop(drawing, None) is None:
            group, _ = self._place(drawing)
            if group.is_over:
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
        return DrawnImages([group.pixels(image, is_whole)], is_whole, group.native(image))

    def draw(
        self,
        batch: Mapping[str, Any],
        copies: int,
        generators: Sequence[torch.Generator] | torch.Generator | None,
        follow: Follow | None,
    ) -> DrawnImages:
        """Draws a whole batch as one group, with the session's settings; see [`~GroupedSession.begin_group`].

        Args:
            batch: prompts as the processor prepares them.
            copies: drawings per prompt.
            generators: one per drawing, or one for all; None = torch's own.
            follow: is called with each step of each drawing; returning False ends them all.
        """
        group = self.begin_group(batch, copies, generators, self.settings, follow)
        while group.advance():
            pass
        images = range(group.count)
        return DrawnImages(
            [group.pixels(image, group.complete) for image in images], group.complete, group.native(None)
        )

    def _begin(self) -> None:
        """Groups of the rows that wait, by their settings."""
        while self._waiting:
            settings = next(iter(self._waiting.values()))[2]
            chosen = {number: one for number, one in self._waiting.items() if one[2] == settings}
            self._waiting = {number: one for number, one in self._waiting.items() if number not in chosen}
            rows = [row for row, _, _ in chosen.values()]
            batch = rows[0] if len(rows) == 1 else self.join_rows(rows)
            generators: Any = [generator for _, generator, _ in chosen.values()]
            numbers = list(chosen)
            follow = functools.partial(self._note, numbers)
            group = self.begin_group(batch, 1, generators, settings, follow)
            self._places |= {number: (group, image) for image, number in enumerate(numbers)}

    def _note(self, numbers: Sequence[int], step: Step) -> None:
        if numbers[step.image] not in self._cancelled:
            self._steps.append(Step(numbers[step.image], step.done, step.total, step.preview))

    def _place(self, drawing: int) -> tuple[DrawingGroup, int]:
        if drawing not in self._places:
            raise ValueError(f"There is no drawing {drawing} in this session.")
        return self._places[drawing]
