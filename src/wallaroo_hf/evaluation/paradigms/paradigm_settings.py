"""How large a comparison of paradigms is: a budget in time, seeds, and what is learned and judged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...families.registry import FAMILIES, Family
from ...scenes.lessons import SIZE

__all__ = ["ParadigmSettings", "families_to_compare", "read_budget"]

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_BUDGET = re.compile(r"(?:\d+(?:\.\d+)?[hms])+")
_EDGE = 16  # pixels, of which edges are multiples


def read_budget(text: str) -> float:
    """Seconds from words such as "2h", "90m", "1h30m" or "45s".

    Raises:
        ValueError: for others, and for less than a second.
    """
    words = text.strip().lower()
    parts = re.findall(r"(\d+(?:\.\d+)?)([hms])", words) if _BUDGET.fullmatch(words) else []
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds < 1:
        raise ValueError(f"The budget is {text!r}, but must be a time of at least a second, such as 2h, 1h30m or 45s.")
    return seconds


@dataclass(frozen=True)
class ParadigmSettings:
    """All that decides a comparison, beside families and the number of seeds.

    Attributes:
        budget: seconds of computing that each family and seed is trained for: of the process on a CPU, of the clock on an
            accelerator.
        base: folder or Hub id of a Qwen2.5-VL that all grow from; None = a small one, trained first.
        given: further parts by name, see [`wallaroo_hf.families.paradigm_contract.ParadigmParts`].
        data: own rows to learn from, as docs/data.md has them; None = the scenes.
        prompts: own prompts to judge, a file as of [`wallaroo_hf.scenes.read_prompts`]; None = the scenes.
        size: `(height, width)` in pixels that is drawn.
        judged: pictures that each run draws; half as many are edited, and half as many questions asked.
        looks: how often each run is looked at while it is trained.
        looked_at: pictures that are drawn at each look.
        batch_size: rows of each optimizer step.
        together: rows in one forward.

    Raises:
        ValueError: for numbers that cannot be, and own rows without prompts to judge.
    """

    budget: float = 7200.0
    base: str | None = None
    given: Mapping[str, str] = field(default_factory=dict)
    data: str | None = None
    prompts: str | None = None
    size: tuple[int, int] = SIZE
    judged: int = 240
    looks: int = 10
    looked_at: int = 60
    batch_size: int = 32
    together: int = 8

    def __post_init__(self) -> None:
        for name in ("budget", "judged", "looks", "looked_at", "batch_size", "together"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}, but must be at least 1.")
        if self.batch_size % self.together:
            raise ValueError(
                f"`batch_size` is {self.batch_size}, which {self.together} rows in one forward (`together`) do not divide."
            )
        if min(self.size) < _EDGE or any(edge % _EDGE for edge in self.size):
            raise ValueError(f"`size` is {self.size}, but its edges must be multiples of {_EDGE} pixels.")
        if self.data is not None and self.prompts is None:
            raise ValueError(
                "Own rows are learned (`data`), so the built-in captions say nothing of what was learned; give prompts to "
                "judge too (`prompts`, as `wallaroo evaluate scenes --prompts` takes them)."
            )
        if self.data is None and self.prompts is None and self.size != SIZE:
            raise ValueError(
                f"`size` is {self.size}, but the rows and captions of the scenes are {SIZE[0]}x{SIZE[1]} here; leave it "
                "out, or give `data` and `prompts` of your own."
            )


def families_to_compare(names: tuple[str, ...] | None) -> dict[str, Family]:
    """Families that bring a paradigm, by name.

    Args:
        names: some of them; None = all.

    Raises:
        ValueError: for others.
    """
    known = {name: family for name, family in FAMILIES.items() if family.paradigm is not None}
    if names is None:
        return known
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(f"There is no paradigm {unknown[0] if unknown else ''!r}; there are {', '.join(known)}.")
    return {name: family for name, family in known.items() if name in names}
