"""How pictures come out of their noise: [`QuerySettings`]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...common.step_settings import StepSettings
from ...files.whole_text import printable
from ..hieraquery_abilities import DEFAULT_GUIDANCE_SCALE, DEFAULT_STEPS, SCALES_TO_DRAW

__all__ = ["QuerySettings"]


@dataclass(frozen=True)
class QuerySettings(StepSettings):
    """See [`StepSettings`].

    Attributes:
        scales: "finest", or "all": pictures of the coarser scales too.

    Raises:
        ValueError: for values that cannot be.
    """

    family: ClassVar[str] = "HieraQuery"

    guidance_scale: float = DEFAULT_GUIDANCE_SCALE
    num_inference_steps: int = DEFAULT_STEPS
    scales: str = "finest"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scales not in SCALES_TO_DRAW:
            raise ValueError(f"`scales` is {printable(repr(self.scales), 60)}, but must be 'finest' or 'all'.")
