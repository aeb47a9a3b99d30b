"""Turning what was generated into the next turn of a chat."""

from collections.abc import Sequence
from typing import Any

from PIL import Image

from ..common.chat_turns import with_next_turn


def continue_chat(
    messages: Sequence[dict[str, Any]], pieces: Sequence[str | Image.Image], prompt: str
) -> list[dict[str, Any]]:
    """A chat with the answer that was just given and the user's next words.

    An image that was just drawn goes along with the next words as their source, because that is where the model was
    trained to find what it shall edit. Sources of earlier turns stay where they are.

    Args:
        messages: the chat so far, ending with the user's turn.
        pieces: the answer: strings and pictures in order (`processor.split_output`, images decoded).
        prompt: what the user says next.

    Returns:
        A new list of messages; the one given is not changed.

    Raises:
        ValueError: if the chat does not end with the user's turn.
    """
    said = "".join(piece for piece in pieces if isinstance(piece, str))
    drawn = [piece for piece in pieces if isinstance(piece, Image.Image)]
    content: list[dict[str, Any]] = [{"type": "image", "image": drawn[-1]}] if drawn else []
    content.append({"type": "text", "text": prompt})
    return with_next_turn(messages, [{"type": "text", "text": said}], content)
