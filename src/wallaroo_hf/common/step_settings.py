"""Settings of drawings that come out of their noise step by step: what families share of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

from .drawn_values import read_count, read_number

__all__ = ["StepSettings"]


@dataclass(frozen=True)
class StepSettings:
    """How pictures come out of their noise. A family's own class has its title, its defaults and what only it has.

    Attributes:
        guidance_scale: `v_null + scale · (v_cond - v_null)`, above 0; 1 = no guidance, half the work.
        num_inference_steps: steps of the scheduler.
        scheduler: one of diffusers' flow schedulers; None = the checkpoint's own.

    Raises:
        ValueError: for values that cannot be.
    """

    family: ClassVar[str]

    guidance_scale: float
    num_inference_steps: int
    scheduler: Any = field(default=None, compare=False)

    def __post_init__(self) -> None:
        scale = read_number("guidance_scale", self.guidance_scale)
        if not 0 < scale < float("inf"):
            raise ValueError(
                f"`guidance_scale` is {scale:g}, but must be above 0 (1 draws without guidance); at 0 the prompt would not "
                "count."
            )
        object.__setattr__(self, "guidance_scale", scale)
        object.__setattr__(self, "num_inference_steps", read_count("num_inference_steps", self.num_inference_steps))

    @classmethod
    def read(cls, given: Mapping[str, Any], generation_config: Any) -> Self:
        """Settings as they were given, else the checkpoint's.

        Args:
            given: by name; None = not given.
            generation_config: its `image_guidance_scale` and `image_num_inference_steps` are the defaults.

        Raises:
            ValueError: for names that are none, and values that cannot be.
        """
        names = [one.name for one in fields(cls)]
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise ValueError(f"{cls.family} has no drawing setting `{unknown[0]}`; it has {', '.join(names)}.")
        chosen = {name: value for name, value in given.items() if value is not None}
        for name in ("guidance_scale", "num_inference_steps"):
            default = getattr(generation_config, f"image_{name}", None)
            if default is not None:
                chosen.setdefault(name, default)
        return cls(**chosen)
