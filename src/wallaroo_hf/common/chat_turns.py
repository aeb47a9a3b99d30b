"""Chats that go on: the answer that was given, and what the user says next."""

from collections.abc import Sequence
from typing import Any

__all__ = ["with_next_turn"]


def with_next_turn(
    messages: Sequence[dict[str, Any]], answered: list[dict[str, Any]], said: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """A new list of messages; the one given is not changed.

    Args:
        messages: the chat so far, ending with the user's turn.
        answered, said: parts of the assistant's turn, and of the user's that follows.

    Raises:
        ValueError: if the chat does not end with the user's turn.
    """
    if not messages or messages[-1].get("role") != "user":
        raise ValueError("The chat does not end with a message of role 'user', so there is nothing that was answered.")
    return [*messages, {"role": "assistant", "content": answered}, {"role": "user", "content": said}]
