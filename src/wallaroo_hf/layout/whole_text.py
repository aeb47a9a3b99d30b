"""Whole text: halves of characters, which JSON and arguments of commands can hold, are refused before a tokenizer."""

from typing import Any

__all__ = ["refuse_halves"]


def refuse_halves(**given: Any) -> None:
    """Refuses strings that hold half of a character (a lone surrogate), which no tokenizer reads and no file holds.

    Args:
        given: strings, lists of them, or anything else, which is left alone, by the names of the arguments.

    Raises:
        ValueError: naming the argument.
    """
    for name, value in given.items():
        for text in value if isinstance(value, (list, tuple)) else [value]:
            try:
                if isinstance(text, str):
                    text.encode()
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"`{name}` holds half of a character ({text[error.start]!a} at position {error.start}); give whole "
                    "text, in UTF-8."
                ) from error
