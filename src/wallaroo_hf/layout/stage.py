"""The record of a training stage: the one place that says which layout a checkpoint of that stage speaks.

The converter and the trainer write `config.json`, `processor_config.json` and `generation_config.json` from it.
"""

from dataclasses import dataclass, field
from typing import Any

from .grid import BUCKETS_512
from .special_tokens import RELEASED_INDICATOR_SIZES

# 0: a backbone that understands, before any of the paper's stages.
STAGES = ("0", "1", "2", "3a", "3b", "4")


@dataclass(frozen=True)
class StageRecord:
    """Layout facts of a stage (paper Table 1 and the released training scripts).

    Attributes:
        name: one of `STAGES`.
        line_breaks: whether `<|end_of_line>|` stands between rows.
        size_indicators: whether the prompt announces height and width by indicator tokens.
        has_editing: whether the editing modules exist.
        buckets: the image sizes, `(height, width)` in pixels.
    """

    name: str
    line_breaks: bool
    size_indicators: bool
    has_editing: bool
    buckets: tuple[tuple[int, int], ...]
    indicator_sizes: tuple[int, ...] = field(default=RELEASED_INDICATOR_SIZES)

    @property
    def announced_sizes(self) -> tuple[int, ...]:
        """The sizes that have an indicator token."""
        return self.indicator_sizes if self.size_indicators else ()

    def processor_settings(self) -> dict[str, Any]:
        """The entries of `processor_config.json` that this stage decides."""
        return {
            "line_breaks": self.line_breaks,
            "size_indicators": self.size_indicators,
            "has_editing": self.has_editing,
            "indicator_sizes": list(self.indicator_sizes),
            "buckets": [list(bucket) for bucket in self.buckets],
        }

    def generation_settings(self) -> dict[str, Any]:
        """The entries of `generation_config.json` that drawing reads (released sampling scripts: top-k 1000, scale 3)."""
        return {
            "do_sample": True,
            "line_breaks": self.line_breaks,
            "attend_padding": False,
            "image_guidance_scale": 3.0,
            "image_guidance_min_p": 0.0,
            "image_top_k": 1000,
            "image_temperature": 1.0,
        }


def stage_record(stage: str | int) -> StageRecord:
    """The record of stage 1, 2, 3a, 3b or 4 (or 0).

    Raises:
        ValueError: for any other name.
    """
    name = str(stage).lower()
    if name not in STAGES:
        raise ValueError(f"Stage is {stage!r}, but must be one of {', '.join(STAGES)}.")
    if name in ("3b", "4"):
        return StageRecord(name, True, True, name == "4", BUCKETS_512)
    side = 512 if name == "3a" else 384
    return StageRecord(name, False, False, False, ((side, side),))
