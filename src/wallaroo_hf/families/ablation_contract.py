"""What a family brings so that its choices can be tried small, one against the other, on the scenes.

Types of torch are named for readers and type checkers only; importing this needs none of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

    from .training_stages import TrainingStage

__all__ = ["Claim", "FamilyAblation", "FamilyVariant"]


@dataclass(frozen=True)
class FamilyVariant:
    """One arrangement.

    Attributes:
        name: for the command line, results and files.
        origin: where it comes from, such as "Table 3" or "control".
        words: what it is, in half a sentence.
        length: how many steps it is trained, relative to the others.
    """

    name: str
    origin: str
    words: str
    length: float = 1.0


@dataclass(frozen=True)
class Claim:
    """That one variant is better than another.

    Attributes:
        words: what it would say, in half a sentence.
        better, worse: names of variants.
    """

    words: str
    better: str
    worse: str


class FamilyAblation(Protocol):
    """Variants of a small model of a family, which are trained alike and compared.

    Attributes:
        question: what is asked.
        variants: by name, in the order in which they are shown.
        references: those among them that the others are compared with, the first one above all.
        claims: what the comparison may show.
        size: `(height, width)` in pixels of the pictures that it draws; those of the scenes' small lessons fit.
        steps: of training, where nothing is said.
        batch_size: rows of each step, where nothing is said.
    """

    question: str
    variants: Mapping[str, FamilyVariant]
    references: tuple[str, ...]
    claims: Sequence[Claim]
    size: tuple[int, int]
    steps: int
    batch_size: int

    def open(self, base: str, folder: Path) -> Any:
        """What all variants are built on, from a checkpoint.

        Args:
            base: its folder or Hub id.
            folder: of the run, for what is made once.

        Raises:
            ValueError: if it is none that they can be built on.
        """

    def describe(self, variant: str) -> dict[str, Any]:
        """The settings that make it what it is, for the record."""

    def start(self, parts: Any, variant: str, seed: int) -> tuple[Any, Any]:
        """A new model, in float32 on the CPU, and its processor.

        Args:
            parts: from [`open`].
            variant: its name.
            seed: of random weights.
        """

    def stage(self, variant: str, steps: int, batch_size: int) -> TrainingStage:
        """How it is trained, on text-to-image rows.

        Args:
            variant: its name.
            steps: of training.
            batch_size: rows of each.
        """

    def draw(self, model: Any, batch: Any, generators: Sequence[torch.Generator]) -> list[list[torch.Tensor]]:
        """Draws a batch with the model's own settings.

        Args:
            model: a trained one.
            batch: from its processor.
            generators: of the noise, one per picture.

        Returns:
            For each row its pictures `(3, h, w)` in [-1, 1]: coarser ones that it has learned, if any, then the picture.
        """
