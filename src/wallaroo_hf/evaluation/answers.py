"""Answers to chats about pictures and videos, a batch at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from PIL import Image

from ..families.contract import DrawingModel, DrawingProcessor


@dataclass(frozen=True)
class Video:
    """A video in a question.

    Attributes:
        video: in any form that processors take.
        rate: how many frames a second it has, where it is a list of frames.
    """

    video: Any
    rate: float | None = None


Piece: TypeAlias = "str | Image.Image | Video"


def answer(
    model: DrawingModel,
    processor: DrawingProcessor,
    questions: Sequence[Sequence[Piece]],
    settings: Mapping[str, Any] | None = None,
    video_options: Mapping[str, Any] | None = None,
    **generation: Any,
) -> list[str]:
    """What a model answers to questions, each in a chat of its own.

    Args:
        model: of any family.
        processor: its processor.
        questions: each one's words, pictures and videos, in the order that they are shown in.
        settings: of the family, that say something of answers.
        video_options: how videos are seen, such as `fps`; see [`wallaroo_hf.families.abilities.Abilities.video_options`].
        generation: arguments of `generate`, such as `do_sample` and `max_new_tokens`.
    """
    chats = [[{"role": "user", "content": [_content(piece) for piece in question]}] for question in questions]
    texts = [processor.apply_chat_template(chat, add_generation_prompt=True) for chat in chats]
    pictures = [piece for question in questions for piece in question if isinstance(piece, Image.Image)]
    videos = [piece for question in questions for piece in question if isinstance(piece, Video)]
    shown = {"videos": [one.video for one in videos], **(video_options or {})} if videos else {}
    if any(one.rate is not None for one in videos):
        shown["video_metadata"] = [{} if one.rate is None else {"fps": one.rate} for one in videos]
    inputs = processor(
        text=texts, images=pictures or None, generation_mode="text", return_tensors="pt", **shown, **(settings or {})
    )
    inputs = inputs.to(model.device, dtype=model.dtype)
    tokens = model.generate(**inputs, generation_mode="text", **(settings or {}), **generation)
    answers = processor.post_process_image_text_to_text(tokens[:, inputs["input_ids"].shape[1] :])
    return [text.strip() for text in answers]


def _content(piece: Piece) -> dict[str, str]:
    if isinstance(piece, str):
        return {"type": "text", "text": piece}
    return {"type": "video" if isinstance(piece, Video) else "image"}
