"""What the worker is asked to do, and what it reports."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from PIL import Image

from ..families.abilities import COMPOSITION
from ..families.contract import TextSettings

__all__ = [
    "ANSWERING",
    "DRAWING",
    "Answer",
    "Drawing",
    "DrawingSettings",
    "Ending",
    "Picture",
    "Preview",
    "Text",
    "TextSettings",
]

DRAWING, ANSWERING = "drawing", "answering"  # lanes
_SHORT = 512  # tokens: chats up to here may all go together


@dataclass(frozen=True)
class DrawingSettings:
    """How an image is drawn.

    Attributes:
        size: `(height, width)` in pixels.
        fits_source: the size was not asked for: an edit comes back at its source's size.
        values: settings of the checkpoint that were given, by name, in the order of their names.
    """

    size: tuple[int, int]
    fits_source: bool = False
    values: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Drawing:
    """One image to draw.

    Attributes:
        prompt: what to draw, or how to edit.
        seed: of its own generator.
        settings: its size and how.
        source: the image to edit, or None.
        mask: what of it is painted anew, see [`wallaroo_hf.pictures.masks`], or None.
        negative_prompt: what to steer away from.
        num_previews: how many unfinished states to report, at most.
        references: images that the edit takes from, which are shown before `source`.
    """

    prompt: str
    seed: int
    settings: DrawingSettings
    source: Image.Image | None = None
    mask: Image.Image | None = None
    negative_prompt: str = ""
    num_previews: int = 0
    references: tuple[Image.Image, ...] = ()

    lane: ClassVar[str] = DRAWING
    group: ClassVar[Hashable] = None  # all drawings go together

    @property
    def task(self) -> str:
        """What it is counted as."""
        return "editing" if self.source is not None else "generation"

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it takes beyond drawing and editing, see [`wallaroo_hf.families.abilities.Abilities.notices`]."""
        return (COMPOSITION,) if self.references else ()


@dataclass(frozen=True)
class Answer:
    """One answer to a chat.

    Attributes:
        inputs: the processor's tensors for this one row.
        mode: `"text"`, or `"auto"` where the model may draw.
        seed: of its own generator.
        settings: what it shares with others of its batch.
        max_new_tokens: most tokens of text.
        stop: strings at which the answer ends.
        drawing: settings of what it may draw, by name.
        tasks: what it takes beyond answering, see [`wallaroo_hf.families.abilities.Abilities.notices`].
    """

    inputs: Any
    mode: Literal["text", "auto"]
    seed: int
    settings: TextSettings
    max_new_tokens: int
    stop: Sequence[str] = ()
    drawing: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()

    lane: ClassVar[str] = ANSWERING
    task: ClassVar[str] = "answering"

    @property
    def group(self) -> Hashable:
        """Answers of equal groups can be computed together; long chats only with others of about their length."""
        length = max(_SHORT, self.inputs["input_ids"].shape[1])
        return self.mode, self.settings, (length - 1).bit_length()


@dataclass(frozen=True)
class Preview:
    """An unfinished image."""

    image: Image.Image
    index: int


@dataclass(frozen=True)
class Picture:
    """A finished image."""

    image: Image.Image
    num_tokens: int


@dataclass(frozen=True)
class Text:
    """A piece of an answer."""

    text: str


@dataclass(frozen=True)
class Ending:
    """An answer is complete.

    Attributes:
        reason: `"stop"` (the model or a stop string ended it) or `"length"`.
        num_prompt_tokens, num_new_tokens: what was read and written, those of images included.
        num_reused_tokens: those of the prompt that were read before, for an earlier turn.
    """

    reason: str
    num_prompt_tokens: int
    num_new_tokens: int
    num_reused_tokens: int = 0
