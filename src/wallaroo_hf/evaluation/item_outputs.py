"""What a model makes of items: pictures rebuilt, drawn and edited, and answers, a batch at a time."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from ..families.abilities import Abilities
from ..families.contract import Answer, DrawingModel, DrawingProcessor, Step, TextSettings
from ..families.registry import abilities_of
from ..scenes import Scene, render
from .answers import answer
from .drawing_settings import Sampling
from .items import Item, Output


@dataclass(frozen=True)
class Subject:
    """Who is examined, and how it draws and answers.

    Attributes:
        model: of any family, in evaluation mode.
        processor: its processor.
        sampling: for drawing and editing; answers are greedy.
        max_new_tokens: longest answer.
    """

    model: DrawingModel
    processor: DrawingProcessor
    sampling: Sampling
    max_new_tokens: int

    @functools.cached_property
    def abilities(self) -> Abilities:
        """What the checkpoint can do."""
        return abilities_of(self.model, self.processor)

    def settings(self, stage: str) -> dict[str, Any]:
        """Settings of drawing that the processor (`"prepare"`) or the model (`"draw"`) takes."""
        return self.abilities.for_stage(self.sampling.arguments(), stage)


@contextlib.contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """Switches dropout and the like off for a while."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def make_outputs(subject: Subject, items: Sequence[Item]) -> Sequence[Output]:
    """What the subject makes of items of one task: an RGB picture of the item's size, an answer, or a chat's answer in
    pieces, for each."""
    makers: dict[str, Callable[[Subject, Sequence[Item]], Sequence[Output]]]
    makers = {"reconstruction": _reconstruct, "understanding": _answer, "chat": _reply}
    make = makers.get(items[0].task, _draw)
    return make(subject, items)


def _pictures(items: Sequence[Item]) -> list[Image.Image]:
    """What is shown with each item."""
    return [render(item.scene) for item in items if item.scene is not None]


def _reconstruct(subject: Subject, items: Sequence[Item]) -> list[Image.Image]:
    processor = subject.processor
    shown = zip(items, _pictures(items), strict=True)
    pixels = [processor.to_pixels(picture, item.height, item.width) for item, picture in shown]
    return processor.pictures(subject.model.reconstruct(pixels))


def _draw(subject: Subject, items: Sequence[Item]) -> list[Image.Image]:
    """Drawings, and edits of what is shown."""
    model, processor = subject.model, subject.processor
    shown: list[Any] = _pictures(items)
    if any(item.references for item in items):
        before = [[render(scene) for scene in item.references] for item in items]
        shown = [[*others, picture] for others, picture in zip(before, shown, strict=True)]
    inputs = processor(
        text=_words(items),
        images=shown or None,
        generation_mode="image",
        return_tensors="pt",
        **_sizes(items),
        **subject.settings("prepare"),
    ).to(model.device, dtype=model.dtype)
    drawn = model.draw(inputs, generators=_generators(items), **subject.settings("draw"))
    return processor.pictures([pixels for pixels in drawn.pixels if pixels is not None])


def _answer(subject: Subject, items: Sequence[Item]) -> list[str]:
    questions = list(zip(_pictures(items), _words(items), strict=True))
    return answer(subject.model, subject.processor, questions, do_sample=False, max_new_tokens=subject.max_new_tokens)


class _Unheard:
    """Nobody listens: answers are looked at when they are complete."""

    def token(self, row: int, id: int) -> bool | None:
        return None

    def image_begins(self, row: int) -> None: ...

    def image_step(self, row: int, step: Step) -> bool | None:
        return None

    def image_done(self, row: int, pixels: torch.Tensor, num_tokens: int) -> None: ...

    def ended(self, row: int, answer: Answer) -> None: ...


def _reply(subject: Subject, items: Sequence[Item]) -> list[Output]:
    """Answers in auto mode, in pieces; text is greedy."""
    model, processor = subject.model, subject.processor
    chats = [item.chat for item in items if item.chat is not None]
    inputs = processor(
        text=[processor.apply_chat_template(chat["messages"][:-1], add_generation_prompt=True) for chat in chats],
        images=[render(Scene.from_dict(scene)) for chat in chats for scene in chat["shown"]] or None,
        generation_mode="auto",
        return_tensors="pt",
        **_sizes(items),
    ).to(model.device, dtype=model.dtype)
    answers = model.converse(
        inputs,
        mode="auto",
        follow=_Unheard(),
        generators=_generators(items),
        max_new_tokens=[subject.max_new_tokens] * len(items),
        text=TextSettings(),
        drawing=subject.settings("draw"),
    )
    return [_pieces(processor, one) for one in answers]


def _pieces(processor: DrawingProcessor, given: Answer) -> Output:
    """Words and pictures; words that say nothing are left out."""
    pieces: list[str | Image.Image] = []
    for piece in given.pieces:
        if isinstance(piece, torch.Tensor):
            pieces += processor.pictures([piece])
            continue
        words = processor.tokenizer.decode(piece, skip_special_tokens=True)
        pieces += [words] if words.strip() else []
    return pieces


def _words(items: Sequence[Item]) -> list[str]:
    return [item.prompt.prompt for item in items if item.prompt is not None]


def _sizes(items: Sequence[Item]) -> dict[str, list[int]]:
    return {"height": [item.height for item in items], "width": [item.width for item in items]}


def _generators(items: Sequence[Item]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(item.seed) for item in items]
