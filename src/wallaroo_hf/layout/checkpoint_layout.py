"""`Layout`: how the images of a checkpoint are written down, and the layouts of the paper's stages.

It is read from a checkpoint, and the converter and the trainer write `config.json`, `processor_config.json` and
`generation_config.json` from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .grid import BUCKETS_512
from .special_tokens import RELEASED_INDICATOR_SIZES

__all__ = ["PAPER_LAYOUTS", "Layout", "paper_layout"]


@dataclass(frozen=True)
class Layout:
    """How the images of a checkpoint stand in its sequences.

    Attributes:
        buckets: the image sizes, `(height, width)` in pixels.
        indicators: edges in pixels that prompts announce by a token each; () = sizes are not announced.
        line_breaks: whether `<|end_of_line>|` stands between rows.
        has_editing: whether the editing modules exist.
        first_code: id of image code 0 in sequences; None = where the vocabulary of whatever checkpoint it is ends.

    Raises:
        ValueError: for sizes that are none.
    """

    buckets: tuple[tuple[int, int], ...]
    indicators: tuple[int, ...]
    line_breaks: bool
    has_editing: bool
    first_code: int | None = None

    def __post_init__(self) -> None:
        try:
            buckets = tuple((int(height), int(width)) for height, width in self.buckets)
            indicators = tuple(int(edge) for edge in self.indicators)
        except (TypeError, ValueError):
            buckets, indicators = (), ()
        if not buckets or min(map(min, buckets)) < 1 or min(indicators, default=1) < 1:
            raise ValueError(
                f"A layout has `buckets` {self.buckets!r} and `indicators` {self.indicators!r}, but needs at least one "
                "bucket (height, width), and edges, all in pixels above 0."
            )
        object.__setattr__(self, "buckets", buckets)
        object.__setattr__(self, "indicators", indicators)

    @classmethod
    def read(cls, config: Any, processor: Any) -> "Layout":
        """The layout of a checkpoint.

        Args:
            config: its `WallarooConfig`, or what `config.json` says, as a mapping.
            processor: its `WallarooProcessor`, or what `processor_config.json` says, as a mapping. What a file leaves out
                is as the released model has it.
        """
        text_config = _entry(config, "text_config", {})
        announces = _entry(processor, "size_indicators", True)
        return cls(
            buckets=_entry(processor, "buckets", BUCKETS_512),
            indicators=_entry(processor, "indicator_sizes", RELEASED_INDICATOR_SIZES) if announces else (),
            line_breaks=_entry(processor, "line_breaks", True),
            has_editing=_entry(config, "has_editing", True),
            first_code=_entry(text_config, "vocab_size", None),
        )

    def processor_settings(self) -> dict[str, Any]:
        """The entries of `processor_config.json` that the layout decides; edges only where sizes are announced."""
        settings: dict[str, Any] = {
            "line_breaks": self.line_breaks,
            "size_indicators": bool(self.indicators),
            "has_editing": self.has_editing,
            "buckets": [list(bucket) for bucket in self.buckets],
        }
        if self.indicators:
            settings["indicator_sizes"] = list(self.indicators)
        if self.first_code is not None:
            settings["first_image_token_id"] = self.first_code
        return settings

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


def _entry(settings: Any, name: str, otherwise: Any) -> Any:
    """A setting of an object or of the file that it is saved as."""
    return settings.get(name, otherwise) if isinstance(settings, Mapping) else getattr(settings, name)


_SQUARE_384 = Layout(((384, 384),), indicators=(), line_breaks=False, has_editing=False)
_SQUARE_512 = replace(_SQUARE_384, buckets=((512, 512),))
_SIZES_512 = Layout(BUCKETS_512, RELEASED_INDICATOR_SIZES, line_breaks=True, has_editing=False)
# What a checkpoint speaks after each of the paper's stages (Table 1 and the released training scripts).
# 0: a backbone that understands, before any of them.
PAPER_LAYOUTS: dict[str, Layout] = {
    **dict.fromkeys(("0", "1", "2"), _SQUARE_384),
    "3a": _SQUARE_512,
    "3b": _SIZES_512,
    "4": replace(_SIZES_512, has_editing=True),
}


def paper_layout(stage: str | int) -> Layout:
    """The layout of stage 1, 2, 3a, 3b or 4 (or 0), whatever the case of its letters.

    Raises:
        ValueError: for any other name.
    """
    name = str(stage).lower()
    if name not in PAPER_LAYOUTS:
        raise ValueError(f"Stage is {stage!r}, but must be one of {', '.join(PAPER_LAYOUTS)}.")
    return PAPER_LAYOUTS[name]
