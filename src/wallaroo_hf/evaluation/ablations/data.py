"""Rows of the ablations: small pictures to draw and to edit, encoded once, and the scenes behind those that are scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...modeling.vq import WallarooVQModel
from ...processing.processor import WallarooProcessor
from ...scenes.lessons import SIZE, make_edit_lesson, make_lesson
from ...scenes.tasks import render_row
from ...training.data.encoding import encode_rows
from ...training.datasets import load_rows

__all__ = ["SIZES", "TRAIN_SEED", "VALIDATION_SEED", "EncodedRows", "Lessons", "encoded_lessons"]

TRAIN_SEED, VALIDATION_SEED = 0, 1  # of rows: what is scored is of the same kind as what is learned, but other rows
# of the ablation `indicators`: a picture's width does not tell how many rows it has
SIZES = ((64, 64), (96, 64), (128, 64), (64, 96), (96, 96), (64, 128))

Report = Callable[[int, int], None]


class Lessons(Sequence[dict[str, Any]]):
    """Small pictures in the form of training rows; `scene_row` gives what is behind them.

    Args:
        kind: "editing", "generation", or "sizes": drawings of `SIZES` in turn.
        num_rows: how many.
        seed: another seed gives other rows.
    """

    def __init__(self, kind: str, num_rows: int, seed: int) -> None:
        self.kind, self.num_rows, self.seed = kind, num_rows, seed

    def __len__(self) -> int:
        return self.num_rows

    def scene_row(self, index: int) -> dict[str, Any]:
        """The row of the scenes, with its specification and without its pictures."""
        if self.kind == "editing":
            return make_edit_lesson(self.seed, index)
        size = SIZES[index % len(SIZES)] if self.kind == "sizes" else SIZE
        return make_lesson(self.seed, index, size)

    def __getitem__(self, index: int) -> dict[str, Any]:  # type: ignore[override]
        if not 0 <= index < self.num_rows:
            raise IndexError(index)
        row = render_row(self.scene_row(index))
        target = row["target_scene"]
        return {
            **{key: row[key] for key in ("messages", "images")},
            "height": target["height"],
            "width": target["width"],
            "name": f"{self.kind}[{index}]",
        }


@dataclass(frozen=True)
class EncodedRows:
    """Rows with their codes, and the scenes that they show.

    Attributes:
        rows: as of `load_rows`, with `image_tokens` and for edits `source_latents`.
        lessons: the same rows of the scenes, in the same order.
    """

    rows: Any
    lessons: Lessons


def encoded_lessons(
    kind: str,
    num_rows: int,
    seed: int,
    vq_model: WallarooVQModel,
    processor: WallarooProcessor,
    folder: Path,
    report: Report,
) -> EncodedRows:
    """Encodes lessons into a folder of `folder`, or reads what is there already.

    Args:
        kind: of lessons, as [`Lessons`] takes it.
        num_rows: how many.
        seed: another seed gives other rows.
        vq_model: the image tokenizer that encodes.
        processor: the checkpoint's.
        folder: where the encoded rows of all kinds are kept, each in a folder of its own.
        report: is told how many rows are done, and of how many.

    Raises:
        ValueError: if the folder holds rows of another image tokenizer.
    """
    lessons = Lessons(kind, num_rows, seed)
    encoded = folder / f"{kind}-{num_rows}-{seed}"
    if not (encoded / "state.json").exists():
        words = f"ablations: {kind}, {num_rows} rows, seed {seed}"
        with torch.no_grad():
            encode_rows(
                lessons,
                vq_model,
                processor,
                encoded,
                source=words,
                batch_size=32,
                progress=lambda done: report(done, num_rows),
            )
    return EncodedRows(load_rows(encoded), lessons)
