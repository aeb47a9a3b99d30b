"""Words that a checkpoint of few words never learned; such a one draws something all the same, and people wonder why."""

import re
from collections.abc import Iterator, Mapping, Sequence

__all__ = ["OTHERS", "KnownWords", "spoken_words", "unknown_notice", "unknown_words"]

# language -> kind, such as "shapes" -> words; of the kind "others" messages say nothing
KnownWords = Mapping[str, Mapping[str, Sequence[str]]]
OTHERS = "others"
_PIECES = re.compile(r"[^\W\d_]+|\d+")
_CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")


def unknown_words(prompt: str, known: KnownWords) -> list[str]:
    """The words of a prompt that are none of the known ones, in order, each once.

    Words of languages with spaces are compared without regard to case. Chinese is cut into the longest words that are
    known, from the left; what remains between them is unknown.
    """
    words = {word.lower() for kinds in known.values() for listed in kinds.values() for word in listed}
    spaced = {part for word in words for part in word.split()}
    found: dict[str, None] = {}
    for piece in _PIECES.findall(prompt):
        for part in _CHINESE.split(piece):
            if part and part.lower() not in spaced:
                found.setdefault(part)
        for run in _CHINESE.findall(piece):
            found.update(dict.fromkeys(_remainders(run, words)))
    return list(found)


def spoken_words(prompt: str, known: KnownWords) -> set[str]:
    """The words of a prompt beside the known ones, to collect what is known: of Chinese the characters one by one."""
    unknown = unknown_words(prompt, known)
    return {part for word in unknown for part in (word if _CHINESE.search(word) else [word])}


def unknown_notice(unknown: Sequence[str], known: KnownWords) -> str:
    """One sentence that names the words that are unknown, and what is known in their language."""
    language = "zh" if _CHINESE.search(unknown[0]) and "zh" in known else next(iter(known))
    kinds = {kind: words for kind, words in known[language].items() if kind != OTHERS}
    listed = "; ".join(f"{kind}: {', '.join(words)}" for kind, words in kinds.items())
    quoted = ", ".join(f"'{word[:40]}'" for word in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
    what = "word" if len(unknown) == 1 else "words"
    return f"This checkpoint never learned the {what} {quoted} and may draw something else; it knows {listed}."


def _remainders(run: str, words: set[str]) -> Iterator[str]:
    """What the longest known words leave of a run of Chinese characters."""
    longest = max(map(len, words), default=1)
    start, left = 0, ""
    while start < len(run):
        length = next((n for n in range(min(longest, len(run) - start), 0, -1) if run[start : start + n] in words), 0)
        if length and left:
            yield left
            left = ""
        if not length:
            left += run[start]
        start += length or 1
    if left:
        yield left
