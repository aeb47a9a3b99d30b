"""All words that the data set says: who learned from it alone knows no others."""

from __future__ import annotations

import functools

from ..families.vocabulary import OTHERS, spoken_words
from .chats import make_chat
from .phrases import Speaker
from .shapes import SHAPES
from .tasks import make_row
from .words import COLOUR_WORDS, LANGUAGES, NUMBER_WORDS, SHAPE_WORDS

__all__ = ["known_words"]

_ROWS = 3_000  # of each kind; every phrasing comes many times among them


@functools.cache
def known_words() -> dict[str, dict[str, list[str]]]:
    """The words of prompts by language and kind: shapes, colours, numbers and others."""
    known: dict[str, dict[str, list[str]]] = {}
    for language in LANGUAGES:
        kinds = {
            "shapes": [word for words in SHAPE_WORDS[language].values() for word in words],
            "colours": [word for words in COLOUR_WORDS[language].values() for word in words],
            "numbers": list(NUMBER_WORDS[language][1:]),
        }
        known[language] = {kind: list(dict.fromkeys(words)) for kind, words in kinds.items()}
    speaker = Speaker("en")
    plurals = {part for shape in SHAPES for part in speaker.shape(shape, 2).split()}
    others: dict[str, set[str]] = {"en": plurals, "zh": set()}
    for index in range(_ROWS):
        for row in (make_row(0, index), make_chat(0, index)):
            for message in row["messages"]:
                for part in message["content"] if message["role"] == "user" else ():
                    for word in spoken_words(part.get("text", ""), known):
                        others["zh" if not word.isascii() else "en"].add(word)
    listed = {word.lower() for kinds in known.values() for words in kinds.values() for word in words}
    for language in LANGUAGES:
        known[language][OTHERS] = sorted({word.lower() for word in others[language]} - listed)
    return known
