"""Answers to chats about pictures, a batch at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from PIL import Image

from ..families.contract import DrawingModel, DrawingProcessor

Piece: TypeAlias = "str | Image.Image"


def answer(
    model: DrawingModel,
    processor: DrawingProcessor,
    questions: Sequence[Sequence[Piece]],
    settings: Mapping[str, Any] | None = None,
    **generation: Any,
) -> list[str]:
    """What a model answers to questions, each in a chat of its own.

    Args:
        model: of any family.
        processor: its processor.
        questions: each one's words and pictures, in the order that they are shown in.
        settings: of the family, that say something of answers.
        generation: arguments of `generate`, such as `do_sample` and `max_new_tokens`.
    """
    chats = [[{"role": "user", "content": [_content(piece) for piece in question]}] for question in questions]
    texts = [processor.apply_chat_template(chat, add_generation_prompt=True) for chat in chats]
    pictures = [piece for question in questions for piece in question if not isinstance(piece, str)]
    inputs = processor(
        text=texts, images=pictures or None, generation_mode="text", return_tensors="pt", **(settings or {})
    )
    inputs = inputs.to(model.device, dtype=model.dtype)
    tokens = model.generate(**inputs, generation_mode="text", **(settings or {}), **generation)
    answers = processor.post_process_image_text_to_text(tokens[:, inputs["input_ids"].shape[1] :])
    return [text.strip() for text in answers]


def _content(piece: Piece) -> dict[str, str]:
    return {"type": "text", "text": piece} if isinstance(piece, str) else {"type": "image"}
