"""From names to phrases: "two red circles", "the blue star", "一个红色的圆形"."""

from __future__ import annotations

import random
from collections.abc import Sequence

from .scene import Scene
from .words import COLOUR_WORDS, LANGUAGES, NUMBER_WORDS, PLACE_WORDS, SHAPE_WORDS

_SYNONYM_RATE = 0.15
_DIGIT_RATE = 0.2
_AMERICAN = {"recolour": "recolor", "colour": "color", "centre": "center"}
_IRREGULAR = {"cross": "crosses", "rhombus": "rhombuses"}
_MEASURES = {"star": "颗", "heart": "颗"}


class Speaker:
    """Finds the words of one row.

    Args:
        language: one of `words.LANGUAGES`.
        rng: chooses between phrasings; None always takes the first, which is how answers are written.

    Raises:
        ValueError: for another language.
    """

    def __init__(self, language: str, rng: random.Random | None = None) -> None:
        if language not in LANGUAGES:
            raise ValueError(f"unknown language {language!r}: use one of {', '.join(LANGUAGES)}")
        self.language = language
        self.rng = rng
        # one style throughout a row, as one writer has
        self._digits = self.chance(_DIGIT_RATE)
        self._bare = self.chance(0.3 if language == "zh" else 0.1)
        self._short_colours = self.chance(0.4)
        self._american = self.chance(0.5)

    def chance(self, probability: float) -> bool:
        """True with a probability; never for a speaker without `rng`."""
        return self.rng is not None and self.rng.random() < probability

    def pick(self, options: Sequence[str]) -> str:
        """One of several phrasings."""
        return options[0] if self.rng is None else self.rng.choice(options)

    def _word(self, options: Sequence[str]) -> str:
        return self.pick(options[1:]) if len(options) > 1 and self.chance(_SYNONYM_RATE) else options[0]

    def colour(self, name: str) -> str:
        """A colour's word."""
        return self._word(COLOUR_WORDS[self.language][name])

    def shape(self, name: str, count: int = 1) -> str:
        """A shape's word, in the plural where English has one."""
        word = self._word(SHAPE_WORDS[self.language][name])
        if self.language == "en" and count != 1:
            return _IRREGULAR.get(word, f"{word}s")
        return word

    def kind(self, shape: str, colour: str | None, count: int = 1) -> str:
        """Shape and colour without number or article: "red circles", "红色的圆形"."""
        word = self.shape(shape, count)
        if colour is None:
            return word
        if self.language == "en":
            return f"{self.colour(colour)} {word}"
        return f"{self.colour(colour)}{'' if self._short_colours else '的'}{word}"

    def number(self, count: int) -> str:
        """A number from 0 to 4 before a noun."""
        return str(count) if self._digits else NUMBER_WORDS[self.language][count]

    def some(self, shape: str, colour: str | None = None, count: int = 1, bare: bool = False) -> str:
        """Something new: "a red circle", "two red circles", "一个红色的圆形".

        Args:
            shape: the shape's name.
            colour: the colour's name, or None to leave it out.
            count: how many.
            bare: a single thing may go without its article or number ("red circle"); the same throughout a row.
        """
        kind = self.kind(shape, colour, count)
        if count == 1 and bare and self._bare:
            return kind
        if self.language == "en":
            article = "an" if kind[0] in "aeiou" else "a"
            return f"{article if count == 1 else self.number(count)} {kind}"
        measure = _MEASURES.get(shape, "个") if self.chance(0.4) else "个"
        return f"{self.number(count)}{measure}{kind}"

    def the(self, shape: str, colour: str | None = None) -> str:
        """Something known: "the red circle", "红色的圆形"."""
        kind = self.kind(shape, colour)
        return f"the {kind}" if self.language == "en" else kind

    def listed(self, phrases: Sequence[str], conjunction: str | None = None) -> str:
        """Several phrases as one: "a, b and c"."""
        word = conjunction or ("and" if self.language == "en" else "和")
        last = f" {word} " if self.language == "en" else word
        comma = ", " if self.language == "en" else "、"
        return last.join([comma.join(phrases[:-1]), phrases[-1]]) if len(phrases) > 1 else phrases[0]

    def place(self, place: str) -> str:
        """Where something is, as a phrase: "in the top left corner", "左上角"."""
        options = PLACE_WORDS[self.language][place]
        return self.pick(options[1:] if self.language == "en" else options)

    def sentence(self, text: str, plain: bool = True) -> str:
        """Final touches: spelling, and now and then a capital letter and a full stop.

        Args:
            text: a phrase or sentence.
            plain: whether it may also stay as it is; otherwise it becomes a proper sentence.
        """
        if self._american:
            for british, american in _AMERICAN.items():
                text = text.replace(british, american)
        if not plain or self.chance(0.35):
            text = text[0].upper() + text[1:]
        if text[-1] not in "?.!？。！" and (not plain or self.chance(0.25)):
            text += "." if self.language == "en" else "。"
        return text


def describe(scene: Scene, language: str) -> str:
    """The one description of a scene: alike objects together, in reading order, then the background.

    Args:
        scene: what to describe; it may be empty.
        language: one of `words.LANGUAGES`.

    Returns:
        For instance "A red circle and two blue stars on a white background."
    """
    speaker = Speaker(language)
    phrases = [speaker.some(shape, colour, count) for (shape, colour), count in scene.counts().items()]
    background = speaker.colour(scene.background)
    if language == "zh":
        text = f"{background}背景上有{speaker.listed(phrases)}" if phrases else f"只有{background}背景"
    else:
        article = "an" if background[0] in "aeiou" else "a"
        text = f"{speaker.listed(phrases) if phrases else 'nothing'} on {article} {background} background"
    return speaker.sentence(text, plain=False)
