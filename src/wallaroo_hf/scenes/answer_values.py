"""Understanding answers: words to values, with the synonyms of `words.py`, in English and Chinese."""

from __future__ import annotations

import functools
import re
from collections import Counter
from typing import NamedTuple

from .words import ACCEPTED_COLOURS, ACCEPTED_SHAPES, COLOUR_WORDS, NUMBER_WORDS, SHAPE_WORDS


class Token(NamedTuple):
    """A word of an answer: its kind and what it stands for, e.g. `("colour", "red")`."""

    kind: str
    value: str


class Listing(NamedTuple):
    """What an answer lists: how many of each `(shape, colour)`, and the backgrounds it names."""

    objects: Counter[tuple[str | None, str | None]]
    backgrounds: frozenset[str]


_NOT, _NONE = Token("yes_no", "no"), Token("number", "0")
_CHINESE = re.compile(r"[\u3400-\u9fff]")
_MORE_NUMBERS = {
    "en": {"none": "0", "no": "0", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"},
    "zh": {"没有": "0", "二": "2", "五": "5", "六": "6", "七": "7", "八": "8", "九": "9", "十": "10"},
}
_PARTS = {  # of places and directions
    "en": {
        "left": ("left",), "right": ("right",), "top": ("top", "upper", "above", "over", "up"),
        "bottom": ("bottom", "lower", "below", "under", "beneath", "underneath", "down"),
        "middle": ("middle", "centre", "center", "central"),
    },
    "zh": {
        "left": ("左",), "right": ("右",), "top": ("上", "顶"), "bottom": ("下", "底"),
        "middle": ("中", "中间", "正中间", "中央", "正中", "中心"),
    },
}  # fmt: skip
_YES_NO = {
    "en": {"yes": ("yes", "yeah", "true", "correct"), "no": ("no", "not", "false")},
    "zh": {"yes": ("是", "是的", "有", "对", "对的", "在"), "no": ("不是", "不", "没有", "没", "否", "不对", "不在")},
}
_BACKGROUND = {"en": ("background",), "zh": ("背景", "底色")}
# words that may stand in an answer without changing it
_FILLERS = {
    "en": "a an the is are it its it's there and on in at of with to this that these picture image shows contains has i "
    "see object objects shape shapes colour color thing side corner only from",
    "zh": "个 颗 的 和 与 还有 以及 有 是 在 上有 图中 图片 图 里 物体 形状 颜色 角 边 方 侧 部 面 这 它 只有 一共 共 画面 "
    "中有 位于 了",
}  # fmt: skip


@functools.cache
def _lexicon(language: str) -> dict[str, tuple[Token, ...]]:
    """Every known word of a language and what it can mean."""
    found: dict[str, list[Token]] = {}

    def learn(word: str, kind: str, value: str) -> None:
        found.setdefault(word, []).append(Token(kind, value))

    for kind, tables in (("shape", (SHAPE_WORDS, ACCEPTED_SHAPES)), ("colour", (COLOUR_WORDS, ACCEPTED_COLOURS))):
        for table in tables:
            for value, words in table[language].items():
                for word in words:
                    learn(word, kind, value)
                    if kind == "shape" and language == "en":
                        learn(f"{word}es" if word.endswith("s") else f"{word}s", kind, value)
    for number, word in enumerate(NUMBER_WORDS[language]):
        learn(word, "number", str(number))
    for word, value in _MORE_NUMBERS[language].items():
        learn(word, "number", value)
    for kind, table_of_words in (("part", _PARTS), ("yes_no", _YES_NO)):
        for value, words in table_of_words[language].items():
            for word in words:
                learn(word, kind, value)
    for word in _BACKGROUND[language]:
        learn(word, "background", "")
    for word in _FILLERS[language].split():
        learn(word, "filler", "")
    return {word: tuple(tokens) for word, tokens in found.items()}


def language_of(text: str) -> str:
    """The language of an answer: "zh" if it has a Chinese character, else "en"."""
    return "zh" if _CHINESE.search(text) else "en"


def tokens(text: str) -> list[tuple[Token, ...]] | None:
    """What each word of an answer can mean, or None if one of them means nothing here.

    Punctuation, case and spaces do not matter; of several readings the longest word is taken.
    """
    language = language_of(text)
    lexicon = _lexicon(language)
    text = text.lower().replace("’", "'")
    if language == "en":
        units, glue, longest = re.findall(r"[a-z']+|\d+", text), " ", 2
    else:
        units, glue, longest = re.findall(r"[\u3400-\u9fff]|[a-z]+|\d+", text), "", 4
    found: list[tuple[Token, ...]] = []
    at = 0
    while at < len(units):
        for length in range(min(longest, len(units) - at), 0, -1):
            word = glue.join(units[at : at + length])
            meanings = lexicon.get(word) or ((Token("number", str(int(word))),) if word.isdecimal() else ())
            if meanings:
                found.append(meanings)
                at += length
                break
        else:
            return None
    return found


def values(text: str, kind: str) -> list[str] | None:
    """What an answer says of one kind ("shape", "colour", "number", "part", "yes_no"), or None if it is not understood.

    To anything but a yes-or-no question, an answer that denies something ("not red") says only what is not so.
    """
    words = tokens(text)
    if words is None or (kind != "yes_no" and _denies(words, counts=kind == "number")):
        return None
    return [token.value for meanings in words for token in meanings if token.kind == kind]


def listing(text: str) -> Listing | None:
    """What an answer lists: numbers, colours and shapes in the order of "two red circles", or None.

    None is returned for an answer that is not understood or denies something, or whose colours and numbers are left over.
    """
    words = tokens(text)
    if not words or _denies(words, counts=True):
        return None
    objects: Counter[tuple[str | None, str | None]] = Counter()
    backgrounds: set[str] = set()
    number, colour, awaits_background = None, None, False
    for token in (_first(meanings, ("shape", "colour", "number", "background")) for meanings in words):
        if token is None:
            continue
        if token.kind == "number":
            if number is not None or colour is not None:
                return None
            number = int(token.value)
        elif token.kind == "colour" and awaits_background:
            backgrounds.add(token.value)
            awaits_background = False
        elif token.kind == "colour":
            if colour is not None:
                return None
            colour = token.value
        elif token.kind == "background":
            if colour is None:
                awaits_background = True  # "the background is white"
            else:
                backgrounds.add(colour)
            number, colour = None, None
        else:
            objects[token.value, colour] += 1 if number is None else number
            number, colour, awaits_background = None, None, False
    if number is not None or colour is not None or awaits_background:
        return None
    return Listing(objects, frozenset(backgrounds))


def _denies(words: list[tuple[Token, ...]], counts: bool) -> bool:
    """Whether an answer says what is not so; where things are counted, "no" and "none" are numbers."""
    if counts:
        return any(_NOT in meanings and _NONE not in meanings for meanings in words)
    return any(_NOT in meanings or _NONE in meanings for meanings in words)


def _first(meanings: tuple[Token, ...], kinds: tuple[str, ...]) -> Token | None:
    return next((token for token in meanings if token.kind in kinds), None)
