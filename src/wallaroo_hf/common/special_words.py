"""Users' words must not spell the tokens that a chat is made of: which tokens those are, and where they are looked for."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from .chat_form import IMAGE_BLOCK, said

__all__ = ["marked_tokens", "refuse_in_chats", "refuse_in_rendered", "refuse_special_tokens"]

# What stands for a text in the chat that a given one is compared with; no token is made of it.
_STAND_IN = "x"
_NAMES = ("role", "type")  # entries that templates decide by: they stay where they are plain words
_PLAIN_WORD = re.compile(r"[\w.-]*")


def marked_tokens(tokenizer: Any, is_own: Callable[[str], bool]) -> tuple[str, ...]:
    """The tokens that users' words must not spell, in the order of their ids.

    They are those that the tokenizer marks as special, and a family's own, which published tokenizers may not mark.
    Others, such as `<tool_call>`, are words that a chat may hold.

    Args:
        tokenizer: the checkpoint's.
        is_own: whether an added token is one of the family's.
    """
    marked = set(tokenizer.all_special_tokens)
    added = [tokenizer.added_tokens_decoder[index] for index in sorted(tokenizer.added_tokens_decoder)]
    found = [token.content for token in added if token.special or is_own(token.content)]
    return (*found, *sorted(marked - set(found)))


def refuse_special_tokens(what: str, words: str, tokens: Iterable[str]) -> None:
    """Users' words must not end the turn that they are put in.

    Args:
        what: what the words are called in the error.
        words: as they will be tokenized.
        tokens: from [`marked_tokens`].

    Raises:
        ValueError: naming the token.
    """
    for token in tokens:
        if token in words:
            raise _refusal(what, token)


def refuse_in_chats(
    render: Callable[..., str | list[str]], said: dict[str, Any], variables: dict[str, Any], tokens: Iterable[str]
) -> None:
    """What is said in chats must not spell special tokens, alone or together with what it is put beside.

    The chats are written out twice, as they are and with every text replaced: both hold each token equally often, because
    both are made by the same template for the same turns and images.

    Args:
        render: writes out one chat or several, from both of these as keywords.
        said: conversation, tools, documents: all that has texts in it, at any depth.
        variables: those of the template; plain words among them stay, because templates decide by them.
        tokens: from [`marked_tokens`].

    Raises:
        ValueError: naming the token.
    """
    plain_variables = {name: _with_stand_ins(value, True) for name, value in variables.items()}
    both = render(**said, **variables), render(**_with_stand_ins(said), **plain_variables)
    for text, plain in zip(*([text] if isinstance(text, str) else text for text in both), strict=True):
        for token in tokens:
            if text.count(token) != plain.count(token):
                raise _refusal("chat", token)


def refuse_in_rendered(text: str, tokens: Iterable[str], blocks: Iterable[str] = (IMAGE_BLOCK,)) -> None:
    """The turns of a chat that is rendered already must not hold special tokens, except for images.

    Args:
        text: the chat.
        tokens: from [`marked_tokens`].
        blocks: of images and the like, which may stand in it.

    Raises:
        ValueError: naming the token.
    """
    refuse_special_tokens("chat", said(text, blocks), tokens)


def _refusal(what: str, token: str) -> ValueError:
    return ValueError(f"The {what} contains the special token {token}, which would break the turn; remove it.")


def _with_stand_ins(value: Any, is_name: bool = False) -> Any:
    """The same lists and dictionaries with every text that is not blank replaced; pictures too, which no template writes.

    Args:
        value: anything that a chat may hold.
        is_name: whether a plain word stays: templates decide by it.
    """
    if hasattr(value, "items"):
        return {_with_stand_ins(key, True): _with_stand_ins(item, key in _NAMES) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_stand_ins(item) for item in value]
    if isinstance(value, str) and (not value.strip() or (is_name and _PLAIN_WORD.fullmatch(value))):
        return value
    # a function is a tool, which its author has described
    return value if value is None or callable(value) or isinstance(value, (bool, int, float)) else _STAND_IN
