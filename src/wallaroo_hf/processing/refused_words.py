"""The words that Wallaroo refuses, see [`wallaroo_hf.common.special_words`]."""

from typing import Any

from ..common.special_words import marked_tokens, refuse_in_chats, refuse_in_rendered, refuse_special_tokens
from ..layout.special_tokens import is_drawing_token

__all__ = ["refuse_in_chats", "refuse_in_rendered", "refuse_special_tokens", "refused_tokens"]


def refused_tokens(tokenizer: Any) -> tuple[str, ...]:
    """The tokens that users' words must not spell, in the order of their ids: the special ones, and those of drawing."""
    return marked_tokens(tokenizer, is_drawing_token)
