"""Whole text: halves of characters, which JSON and arguments of commands can hold, are refused before a tokenizer; and text
that others wrote is quoted so that it can be read."""

from typing import Any

__all__ = ["printable", "refuse_halves"]


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


def printable(text: str, most: int | None = None) -> str:
    """Text as messages quote it: on one line, with escapes for whatever cannot be printed (line breaks, control codes,
    marks of direction, halves of characters).

    Args:
        most: characters; of longer text the middle is left out.
    """
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    if most is None or len(text) <= most:
        return text
    return f"{text[: most // 2]}...{text[len(text) - most // 2 :]}"
