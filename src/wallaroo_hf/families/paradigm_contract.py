"""What a family brings so that it can be compared with others: a new model around a language model that all of them share.

Types of torch are named for readers and type checkers only; importing this needs none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .training_stages import TrainingStage
from .vocabulary import KnownWords

__all__ = ["FamilyParadigm", "ParadigmParts", "SmallLanguageModel", "paradigm_steps"]

Sizes = tuple[tuple[int, int], ...]
_WARM_UP, _WARM_UP_SHARE = 100, 20


def paradigm_steps(steps: int) -> dict[str, Any]:
    """Length and warm-up of a stage of so many steps: a twentieth of it, a hundred steps at most."""
    return {"max_steps": steps, "warmup_steps": min(_WARM_UP, steps // _WARM_UP_SHARE)}


@dataclass(frozen=True)
class ParadigmParts:
    """What all families are built on.

    Attributes:
        language_model: folder or Hub id of a Qwen2.5-VL.
        small: whether that is the small one that a comparison trains by itself: what is new is as large as all then have as
            many parameters, and learns at a small model's rates. Otherwise a family's own sizes and rates count.
        folder: for what has to be written.
        sizes: `(height, width)` in pixels that are drawn.
        seen: those of pictures that are asked about, for families that see at listed sizes.
        pictures: makes pictures (PIL) of the kind that is learned, always the same, to fit a codec to.
        given: further parts by the names of a family's `options`, folders or Hub ids; what is not given is new, or this
            package's own.
        pixel_limits: areas between which pictures are looked at; None = the language model's own.
        known_words: the only words that the language model learned, if so.
        check_weights: whether to look for weights that are not finite.
    """

    language_model: str | Path
    small: bool
    folder: Path
    sizes: Sizes
    seen: Sizes
    pictures: Callable[[], Iterable[Any]]
    given: Mapping[str, str]
    pixel_limits: dict[str, int] | None = None
    known_words: KnownWords | None = None
    check_weights: bool = True


class FamilyParadigm(Protocol):
    """A way to understand and to draw, as it is compared with others.

    Attributes:
        words: what it is, in half a sentence.
        taken: what of the language model it has, what of that is frozen, and what it has instead, in a sentence.
        options: names of further parts that it can be built from.
        answers_at_once: whether a new model answers as the language model does, before it is trained.
        codec: how the names of its image codec's weights begin, which are not counted among its parameters.
        counted: modules that are run once in each evaluation of a network, by what they are called in a table.
    """

    words: str
    taken: str
    options: tuple[str, ...]
    answers_at_once: bool
    codec: str
    counted: Mapping[str, str]

    def start(self, parts: ParadigmParts, seed: int) -> tuple[Any, Any]:
        """A new model, in float32 on the CPU, and its processor.

        Args:
            parts: what it is built on.
            seed: of what is new.

        Raises:
            ValueError: for parts that are not there or do not fit.
        """

    def stage(self, parts: ParadigmParts, ratio: Mapping[str, float], steps: int, batch_size: int) -> TrainingStage:
        """How it is trained.

        Args:
            parts: what it is built on.
            ratio: of the tasks that it is trained on.
            steps: of training.
            batch_size: rows of each.
        """


class SmallLanguageModel(Protocol):
    """What makes the small language model that families share, and that answers questions about pictures.

    Attributes:
        steps: of training, at most.
    """

    steps: int

    def start(self, seed: int, known_words: KnownWords) -> tuple[Any, Any]:
        """A new model, in float32 on the CPU, and its processor.

        Args:
            seed: of its weights.
            known_words: all that it will learn.
        """

    def stage(self, steps: int, batch_size: int) -> TrainingStage:
        """How it is trained, on understanding rows.

        Args:
            steps: of training.
            batch_size: rows of each.
        """

    def export(self, folder: Path, output: Path) -> None:
        """Writes what was trained as a Qwen2.5-VL.

        Args:
            folder: its checkpoint.
            output: the folder to write; must be new.
        """
