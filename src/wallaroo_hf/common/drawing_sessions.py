"""Drawings that come and go, whatever draws them: what begins together goes on together, and fails alone."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch

from ..families.attempts import Attempt
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


@dataclass(frozen=True)
class _Admitted:
    """A drawing that waits to begin.

    Attributes:
        row: a batch of one.
        generator: of its noise.
        settings: all of its settings.
    """

    row: Any
    generator: torch.Generator | None
    settings: dict[str, Any]


class GroupedSession(ABC):
    """See [`wallaroo_hf.families.contract.DrawingSession`]; a family says how a group begins.

    Rows of equal settings that are admitted between two steps begin together: they share a prefill, and their forwards
    from then on. A step is one forward of each such group, or of several where a family can join them.

    Args:
        model: draws.
        max_rows: most images at once.
        settings: those of drawings that are admitted without their own.
    """

    group_form: ClassVar[
        Callable[..., DrawingGroup]
    ]  # of a model, a batch, copies, generators, settings and a follower

    def __init__(self, model: Any, max_rows: int, settings: Mapping[str, Any]) -> None:
        self.model, self.max_rows, self.settings = model, max_rows, dict(settings)
        self._waiting: dict[int, _Admitted] = {}
        self._places: dict[int, tuple[DrawingGroup, int]] = {}  # of each drawing: its group and its image there
        self._cancelled: set[int] = set()
        self._failed: dict[int, Exception] = {}
        self._next = 0
        self._steps: list[Step] = []  # what the step that runs has to report

    # ------------------------------------------------------------------------------------------- what a family says

    @abstractmethod
    def read_settings(self, settings: Mapping[str, Any]) -> Any:
        """Settings as the family's groups take them.

        Args:
            settings: by name.

        Raises:
            ValueError: for settings that cannot be.
        """

    @property
    @abstractmethod
    def pad_token_id(self) -> int:
        """What fills the ids of shorter rows."""

    def kind(self, row: Any) -> Hashable:
        """Rows of equal kinds, and of equal settings, can begin together.

        Args:
            row: a batch of one.
        """
        return None

    def begun(self, group: DrawingGroup) -> None:  # noqa: B027  not every family has something to do
        """A group has taken its first step."""

    def turns(self, groups: Sequence[DrawingGroup]) -> list[tuple[Sequence[DrawingGroup], Callable[[], Any]]]:
        """The forwards that a step of these groups takes: for which of them each is, and the call.

        Args:
            groups: that are under way.
        """
        return [([group], group.advance) for group in groups]

    def left(self, group: DrawingGroup, image: int) -> None:  # noqa: B027
        """Nobody waits for an image of a group any more."""

    # -------------------------------------------------------------------------------------------------- all families

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Refuses settings that cannot be, before a drawing is admitted.

        Args:
            settings: by name.

        Raises:
            ValueError: in one sentence.
        """
        self.read_settings(settings)

    def begin_group(
        self,
        batch: Any,
        copies: int,
        generators: Sequence[torch.Generator | None] | torch.Generator | None,
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
        chosen = self.read_settings(settings)
        return type(self).group_form(self.model, dict(batch), copies, generators, chosen, follow)

    @property
    def under_way(self) -> int:
        """Images that are drawn or wait to begin."""
        going = {number for number, (group, _) in self._places.items() if not group.is_over}
        return len(self._waiting) + len(going - self._cancelled)

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
        self.check_settings(chosen)  # here, not in a step that is others' too
        self._waiting[self._next] = _Admitted(row, generator, chosen)
        self._next += 1
        return self._next - 1

    def step(self) -> list[Step]:
        """One forward of each group that is under way: the images that came further, by their drawings' numbers.

        What goes wrong with a drawing ends it and no other; [`~GroupedSession.take`] says it.
        """
        self._steps = []
        going = {id(group): group for group, _ in self._places.values() if not group.is_over}
        self._begin()
        for groups, advance in self.turns(list(going.values())):
            with Attempt() as attempt:
                advance()
            if attempt.error is not None:
                self._fail(groups, attempt.error)
        return self._steps

    def is_over(self, drawing: int) -> bool:
        """Whether a drawing can be taken.

        Raises:
            ValueError: for a number that is none.
        """
        if drawing in self._waiting:
            return False
        return drawing in self._cancelled or drawing in self._failed or self._place(drawing)[0].is_over

    def cancel(self, drawing: int) -> None:
        """Ends a drawing; the rows that are there can be taken. Others of its group go on.

        Raises:
            ValueError: for a number that is none.
        """
        if drawing in self._failed:
            return
        if self._waiting.pop(drawing, None) is None:
            group, image = self._place(drawing)
            if group.is_over or drawing in self._cancelled:
                return
            self._cancelled.add(drawing)
            self.left(group, image)
            if {number for number, (other, _) in self._places.items() if other is group} <= self._cancelled:
                group.end()
        else:
            self._cancelled.add(drawing)

    def take(self, drawing: int) -> DrawnImages:
        """What a drawing that is over has become; the session forgets it.

        Raises:
            ValueError: for a number that is none, or a drawing that is under way.
            Exception: what went wrong with this drawing.
        """
        if not self.is_over(drawing):
            raise ValueError(f"Drawing {drawing} is not over; step on, or cancel it.")
        if drawing in self._failed:
            raise self._failed.pop(drawing)
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
        """Groups of the rows that wait, by their kinds and settings."""
        while self._waiting:
            first = next(iter(self._waiting.values()))
            kind = self.kind(first.row)
            chosen = {
                number: one
                for number, one in self._waiting.items()
                if one.settings == first.settings and self.kind(one.row) == kind
            }
            self._waiting = {number: one for number, one in self._waiting.items() if number not in chosen}
            self._begin_together(chosen)

    def _begin_together(self, chosen: Mapping[int, _Admitted]) -> None:
        """A group and its first step; where that cannot be, each of its drawings alone."""
        numbers, admitted = list(chosen), list(chosen.values())
        own = [one.generator for one in admitted if one.generator is not None]
        states = [generator.get_state() for generator in own]
        with Attempt() as attempt:
            rows = [one.row for one in admitted]
            batch = rows[0] if len(rows) == 1 else type(rows[0]).join(rows, self.pad_token_id)
            follow = functools.partial(self._note, numbers)
            generators = [one.generator for one in admitted]
            group = self.begin_group(batch, 1, generators, admitted[0].settings, follow)
            group.advance()
            self.begun(group)
            self._places |= {number: (group, image) for image, number in enumerate(numbers)}
        if attempt.error is not None and len(numbers) == 1:
            self._failed[numbers[0]] = attempt.error
        elif attempt.error is not None:
            for generator, state in zip(own, states, strict=True):
                generator.set_state(state)
            for number, one in chosen.items():
                self._begin_together({number: one})

    def _fail(self, groups: Sequence[DrawingGroup], error: Exception) -> None:
        """Forgets groups that cannot go on, but for what is to be said of their drawings."""
        ended = {number: place for number, place in self._places.items() if any(place[0] is one for one in groups)}
        for number, (group, image) in ended.items():
            del self._places[number]
            if number not in self._cancelled:
                self._failed[number] = error
                self.left(group, image)

    def _note(self, numbers: Sequence[int], step: Step) -> None:
        if numbers[step.image] not in self._cancelled:
            self._steps.append(Step(numbers[step.image], step.done, step.total, step.preview))

    def _place(self, drawing: int) -> tuple[DrawingGroup, int]:
        if drawing not in self._places:
            raise ValueError(f"There is no drawing {drawing} in this session.")
        return self._places[drawing]
