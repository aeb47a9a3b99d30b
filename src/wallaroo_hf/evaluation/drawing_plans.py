"""What a drawing benchmark asks for: pictures to draw, and the files that its official scorer reads, made of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"\w[\w.-]{0,120}", flags=re.ASCII)


@dataclass(frozen=True)
class Picture:
    """One picture to draw.

    Attributes:
        name: unique in its plan; its file is `<name>.png`.
        prompt: what to draw, or how to edit.
        source: the picture to edit, relative to the folder of sources; None for text-to-image.
    """

    name: str
    prompt: str
    source: str | None = None


@dataclass(frozen=True)
class ScoredFile:
    """One file that a scorer reads.

    Attributes:
        path: relative to the folder that the scorer is given, with "/".
        pictures: names of the pictures in it: one, or four as a grid of two by two in reading order.
        text: its text, where it is no picture.
    """

    path: str
    pictures: tuple[str, ...] = ()
    text: str | None = None


@dataclass(frozen=True)
class Plan:
    """A benchmark's whole list.

    Attributes:
        benchmark: its name.
        pictures: all of them, in the order that seeds are counted in.
        files: what the scorer reads.
    """

    benchmark: str
    pictures: tuple[Picture, ...]
    files: tuple[ScoredFile, ...]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark that draws.

    Attributes:
        name: as in `wallaroo evaluate NAME`.
        read: makes the plan of a file of prompts; called with its path and the number of pictures per prompt.
        pictures_per_prompt: of the benchmark's rules.
        scored_by_mistake: files among some paths (relative, with "/") that the scorer would count although the plan, whose
            files are the second argument, does not have them.
    """

    name: str
    read: Callable[[Path, int], Plan]
    pictures_per_prompt: int
    scored_by_mistake: Callable[[Sequence[str], Sequence[ScoredFile]], list[str]]


def read_text(path: Path, what: str) -> str:
    """The text of a file of prompts.

    Raises:
        ValueError: if it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"The {what} '{path}' could not be read ({error}); give a text file in UTF-8.") from error


def check_name(name: object, where: str) -> str:
    """A name that may become a file's, and never leads out of its folder.

    Raises:
        ValueError: if it may not.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name.lower().endswith(".png"):
        raise ValueError(
            f"{where} has the name {str(name)[:100]!r}, but a picture's file is named by it; use letters, digits, '_', '-' "
            "and '.', and no ending."
        )
    return name


def check_prompt(prompt: object, where: str) -> str:
    """A prompt with something in it.

    Raises:
        ValueError: if it is missing, empty or no text.
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f"{where} has no prompt; say what to draw, or remove it.")
    return prompt.strip()


def refuse_twins(names: Sequence[str], path: Path) -> None:
    """Names that differ by case alone are one file on some disks.

    Raises:
        ValueError: naming the first such pair.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other is not name:
            raise ValueError(f"'{path}' names both {other!r} and {name!r}, which would be one file; rename one.")
