"""The contract: what a model and a processor must be able to do to stand behind every door; training has `training_kit`.

Types of torch, transformers and Pillow are named for readers and type checkers only; importing this needs none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from transformers import BatchFeature

    from .prefixes import Prefixes

__all__ = [
    "Answer",
    "DrawingModel",
    "DrawingProcessor",
    "DrawingSession",
    "DrawnImages",
    "Follow",
    "Listener",
    "Step",
    "TextSettings",
]


# --------------------------------------------------------------------------------------------------------------- drawing


@dataclass(frozen=True)
class Step:
    """How far a picture is.

    Attributes:
        image: its number.
        done, total: rows or steps that are done, and how many there will be.
        preview: gives what is there as pixels `(3, H, W)` in [-1, 1] when it is asked, or None while there is nothing.
            They have the picture's full width; a family that draws row by row gives the rows from the top that are there.
    """

    image: int
    done: int
    total: int
    preview: Callable[[], torch.Tensor | None]


# Called with each step of each picture; returning False ends the drawing.
Follow = Callable[[Step], "bool | None"]


@dataclass
class DrawnImages:
    """What was drawn.

    Attributes:
        pixels: one `(3, H, W)` in [-1, 1] per picture, or None where nothing was there when the drawing was ended.
        complete: whether all were drawn to their end.
        native: the family's own form: ids `(B, T)` or latents.
    """

    pixels: list[torch.Tensor | None]
    complete: bool
    native: Any


class DrawingSession(Protocol):
    """Drawings that come and go."""

    def admit(self, row: BatchFeature, generator: torch.Generator | None, settings: Mapping[str, Any]) -> int:
        """Takes a prepared row in; it begins with the next step.

        Returns:
            The drawing's number.

        Raises:
            ValueError: if the session is full, or for settings that cannot be.
        """

    def step(self) -> list[Step]:
        """One step of all that are under way: those of their pictures that came further."""

    def is_over(self, drawing: int) -> bool:
        """Whether a drawing can be taken: it is complete, ended, or could not go on."""

    def cancel(self, drawing: int) -> None:
        """Ends a drawing; what is there can be taken."""

    def take(self, drawing: int) -> DrawnImages:
        """What a drawing that is over has become; the session forgets it.

        Raises:
            ValueError: if it is not over.
            Exception: what went wrong with it.
        """


# ------------------------------------------------------------------------------------------------------------- answering


@dataclass(frozen=True)
class TextSettings:
    """How text is sampled.

    Attributes:
        temperature: 0 takes the likeliest token.
        top_k: sample from the k likeliest tokens only; 0 = all.
        top_p: sample from the likeliest tokens that make up this probability only.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0


@dataclass
class Answer:
    """What a model says to one row.

    Attributes:
        pieces: in order, the ids of its texts and the pixels `(3, H, W)` in [-1, 1] of its pictures.
        reason: "stop" (the model ended it), "length" (no more tokens were allowed) or "stopped" (the listener ended it).
        prompt_tokens, new_tokens: what was read and written, those of pictures included.
        partial: whether the last piece is a picture that was not drawn to its end.
        reused_tokens: those of the prompt that were read before, for an earlier turn.
    """

    pieces: list[list[int] | torch.Tensor] = field(default_factory=list)
    reason: Literal["stop", "length", "stopped"] = "length"
    prompt_tokens: int = 0
    new_tokens: int = 0
    partial: bool = False
    reused_tokens: int = 0


class Listener(Protocol):
    """Hears what is said while it comes, row by row. Returning False ends that row and no other."""

    def token(self, row: int, id: int) -> bool | None:
        """A token of text."""

    def image_begins(self, row: int) -> None:
        """A picture begins."""

    def image_step(self, row: int, step: Step) -> bool | None:
        """A picture came further."""

    def image_done(self, row: int, pixels: torch.Tensor, num_tokens: int) -> None:
        """A picture is complete, `(3, H, W)` in [-1, 1]."""

    def ended(self, row: int, answer: Answer) -> None:
        """The answer is complete, though others of the batch may not be."""


# ----------------------------------------------------------------------------------------------------- model, processor


class DrawingModel(Protocol):
    """A model behind a door, beside transformers' own `from_pretrained`, `save_pretrained` and `generate`."""

    config: Any
    generation_config: Any
    name_or_path: str

    @property
    def device(self) -> torch.device:
        """Where it is."""

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights."""

    def generate(self, *arguments: Any, **keywords: Any) -> Any:
        """transformers' own; with `generation_mode="text"` it answers."""

    def draw(
        self,
        batch: Mapping[str, Any],
        *,
        copies: int = 1,
        generators: Sequence[torch.Generator] | torch.Generator | None = None,
        follow: Follow | None = None,
        **settings: Any,
    ) -> DrawnImages:
        """Draws what a batch of the processor (`generation_mode="image"`) asks for.

        Args:
            batch: the processor's tensors, on the model's device.
            copies: pictures per row, side by side.
            generators: one for all, or one per picture.
            follow: see [`Follow`].
            settings: of the stages "draw" and "both", by the names of [`wallaroo_hf.families.settings.Setting`].
        """

    def session(self, max_rows: int, **settings: Any) -> DrawingSession:
        """A session of at most so many drawings at once.

        Args:
            max_rows: more are refused.
            settings: those of drawings that are admitted without their own.
        """

    def reconstruct(self, pixels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Pictures `(3, H, W)` in [-1, 1] through the image codec and back."""

    def converse(
        self,
        batch: Mapping[str, Any],
        *,
        mode: Literal["text", "auto"],
        follow: Listener,
        generators: Sequence[torch.Generator] | None,
        max_new_tokens: Sequence[int],
        text: TextSettings,
        drawing: Mapping[str, Any],
        prefixes: Sequence[Prefixes | None] | None = None,
    ) -> list[Answer]:
        """Answers the chats of a batch; in the mode "auto" it may draw.

        Args:
            batch: the processor's tensors, on the model's device.
            mode: also the `generation_mode` that the batch was prepared with.
            follow: hears what comes.
            generators: one per row, of text and pictures; None needs `text.temperature` 0.
            max_new_tokens: of text, one per row.
            text: how text is sampled.
            drawing: settings of pictures.
            prefixes: what was read of each chat before, one per row: it is read from there on, and what is read now is
                kept there. None = all is read, and nothing kept. Given only where the abilities say `keeps_prefixes`.
        """


class DrawingProcessor(Protocol):
    """A processor behind a door, beside transformers' own `__call__`, `apply_chat_template` and `from_pretrained`."""

    tokenizer: Any

    @property
    def special_words(self) -> tuple[str, ...]:
        """The tokens that users' words must not spell."""

    def __call__(self, images: Any = None, text: Any = None, **arguments: Any) -> BatchFeature:
        """Prepares a batch; `generation_mode`, `height`, `width`, `negative_prompt` and settings of the stage "prepare"."""

    def apply_chat_template(self, conversation: Any, **arguments: Any) -> Any:
        """Writes chats out and prepares them."""

    def post_process_image_text_to_text(self, generated_outputs: Any) -> list[str]:
        """Ids `(B, T)` as text."""

    def to_dict(self) -> dict[str, Any]:
        """Its settings, as `processor_config.json` has them."""

    def count_tokens(self, messages: Sequence[dict[str, Any]], may_draw: bool = False) -> int:
        """How many tokens a chat has at least, its pictures included, told without preparing them."""

    def choose_frames(self, num_frames: int, rate: float | None, max_tokens: int) -> list[int]:
        """Which frames of a video are seen, ascending, where it may become so many tokens; of families that see videos.

        Args:
            num_frames: how many it has.
            rate: how many of them a second; None if that is not known.
            max_tokens: see above.
        """

    def collate(self, rows: Sequence[BatchFeature]) -> BatchFeature:
        """Prepared rows, of one mode, as one batch."""

    def to_pixels(self, image: Image.Image, height: int, width: int) -> torch.Tensor:
        """A picture as the image codec takes it: `(3, H, W)` float32 in [-1, 1], brought to a size as in training."""

    def pictures(self, pixels: Sequence[torch.Tensor]) -> list[Image.Image]:
        """Pixels `(3, H, W)` in [-1, 1] as RGB pictures; each family rounds in its own way."""

    def fit_back(
        self, images: Sequence[Image.Image], sources: Sequence[Any], source_fit: str = ...
    ) -> list[Image.Image]:
        """Edited pictures at the scale of their sources."""

    def continue_chat(
        self, messages: Sequence[dict[str, Any]], pieces: Sequence[Any], prompt: str
    ) -> list[dict[str, Any]]:
        """A chat with the answer that was just given and the user's next words."""
