"""What a family brings to a run on the scenes: a recipe, and what its model is built of before stages are trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch

from ...families.training_stages import TrainingStage

if TYPE_CHECKING:
    from ..previews import Preview

__all__ = ["OutOfTime", "Recipe", "Run", "SceneBuilder", "Step"]


class OutOfTime(Exception):
    """The time given is over; everything is saved, and the same call goes on."""


class Step(Protocol):
    """One run of training within a recipe.

    Attributes:
        name: its folder.
        stage: what it trains and how.
    """

    @property
    def name(self) -> str:
        """Of its folder."""

    @property
    def stage(self) -> TrainingStage:
        """What it trains and how."""


class Recipe(Protocol):
    """All that decides a checkpoint: a dataclass, as it is recorded and compared when a run goes on.

    Attributes:
        seed: of data, weights and random choices.
        per_device_batch_size: rows in one forward.
        looks: how often each step is looked at.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    seed: int
    per_device_batch_size: int
    looks: int

    def training(self) -> Sequence[Any]:
        """Steps of training, in order: see [`Step`]."""

    def builder(self, run: Any) -> Any:
        """The [`SceneBuilder`] of a run."""


class Run(Protocol):
    """What builders see of a run.

    Attributes:
        output: its folder.
        deadline: when its time is over, by `time.monotonic`; None = never.
        save_minutes: between checkpoints.
        report: called with lines for people.
        device: where to compute.
    """

    output: Path
    deadline: float | None
    save_minutes: float
    report: Callable[[str], None]
    device: torch.device

    def result(self, name: str) -> Path:
        """The folder of what a part makes."""

    def is_out_of_time(self) -> bool:
        """Whether the time given is over, or somebody asked to stop."""

    def note(self, part: str, numbers: dict[str, Any]) -> None:
        """Writes a part's numbers, and what it ran on."""


class SceneBuilder(Protocol):
    """What a family has to do beside training its stages.

    Attributes:
        family: its name in the registry.
    """

    family: str

    def parts(self) -> list[str]:
        """What comes before the steps of training, by name, in order."""

    def make(self, part: str) -> None:
        """Makes one, or goes on making it.

        Raises:
            OutOfTime: when the time is over before it is done.
        """

    def result(self, part: str) -> Path:
        """The folder of what one makes."""

    def is_done(self, part: str) -> bool:
        """Whether one is finished."""

    def starting_point(self, step: Any) -> tuple[Any, Any]:
        """Model and processor that a step starts from.

        Raises:
            ValueError: if what it starts from is not finished.
        """

    def rows(self, step: Any, seed: int) -> Any:
        """The rows of a step, in training order."""

    def previews(self, step: Any) -> list[Preview]:
        """What is looked at while a step is trained."""
