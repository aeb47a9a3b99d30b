"""`RowCollator`: what collators of every family share: row by row, broken ones left out or named, choices by number."""

import abc
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..pictures.video_files import VideoError
from .data.row_parts import RowParts, row_label, take_apart
from .data.training_rows import RowError, row_ordinal

__all__ = ["RowCollator"]

logger = logging.getLogger(__name__)


class RowCollator(abc.ABC):
    """Turns rows (docs/data.md) into a batch; how a row is laid out says a family's own collator, which inherits this.

    The random choices of a row follow from `seed` and the row's `ordinal` (its number in the order of training, which
    `TaskMixture` and `Numbered` give), so they are the same however rows are split over processes and workers, and after
    a resume. Rows without it take torch's global generator.

    Args:
        processor: the checkpoint's.
        max_length: longest row in tokens; None = no limit.
        on_error: what to do with a row that is broken or too long: `"raise"`, or `"skip"`: it is left out, named in a
            warning and counted, in the batch and (by this process) in `skipped`. Rows are never cut.
        seed: of the random choices.

    Attributes:
        takes_videos: whether rows may show videos.

    Raises:
        ValueError: for another `on_error`.
    """

    takes_videos = False

    def __init__(
        self, processor: Any, *, max_length: int | None = None, on_error: str = "raise", seed: int = 0
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"`on_error` is {on_error!r}, but must be 'raise' or 'skip'.")
        self.processor = processor
        self.max_length = max_length
        self.on_error = on_error
        self.seed = seed
        self.skipped = 0

    @abc.abstractmethod
    def _lay_out(self, row: Mapping[str, Any], parts: RowParts, rng: np.random.Generator | None) -> dict[str, Any]:
        """One row, unpadded: at least `input_ids` and `labels` as lists; without `rng` as it is longest."""

    @abc.abstractmethod
    def _batch(self, encoded: list[dict[str, Any]]) -> dict[str, Any]:
        """Unpadded rows as one batch."""

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A batch: `input_ids`, `attention_mask`, `labels` `(B, T)`, padded right, the tensors of the images,
        `row_names` (list of str), and `skipped_rows` (int) where rows were left out, here or by the mixture that the rows
        are from (their `skipped`).

        Raises:
            RowError: for a broken or over-long row, unless they are skipped.
        """
        encoded, names, skipped = [], [], 0
        for row in rows:
            skipped += len(row.get("skipped") or ())
            try:
                encoded.append(self.encode(row))
                names.append(row_label(row))
            except RowError as error:
                if self.on_error == "raise":
                    raise
                self.skipped += 1
                skipped += 1
                logger.warning("Row skipped (%d so far): %s", self.skipped, error)
        if not encoded:  # the step goes on without these rows
            end = self.processor.tokenizer.pad_token_id
            encoded, names = [{"input_ids": [end, end], "labels": [-100, -100]}], [""]
        # workers have collators of their own, so the number goes with the batch
        return self._batch(encoded) | {"row_names": names} | ({"skipped_rows": skipped} if skipped else {})

    def measure(self, row: Mapping[str, Any]) -> int:
        """Length of a row in tokens, as it is longest (without regard to `max_length`).

        Raises:
            RowError: for a broken row.
        """
        return len(self._encode(row, None)["input_ids"])

    def encode(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """One row, unpadded: ids and labels as lists, images as arrays.

        Raises:
            RowError: for a broken or over-long row.
        """
        ordinal = row_ordinal(row)
        number = int(torch.randint(2**62, ())) if ordinal is None else ordinal
        encoded = self._encode(row, np.random.default_rng([self.seed, number]))
        length = len(encoded["input_ids"])
        if self.max_length is not None and length > self.max_length:
            raise RowError(
                f"Row {row_label(row)} has {length} tokens, but `max_length` is {self.max_length}; raise it, or take "
                "smaller images or shorter texts (rows are never cut, it would cut images in two).",
                "too_long",
            )
        return encoded

    def _encode(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> dict[str, Any]:
        try:
            parts = take_apart(row)
            if parts.videos and not self.takes_videos:
                raise RowError(
                    "videos are not trained on by models of this family; leave such rows out.", "unsupported_task"
                )
            return self._lay_out(row, parts, rng)
        except (ValueError, TypeError, KeyError, OSError) as error:
            reason = error.reason if isinstance(error, (RowError, VideoError)) else "unusable_row"
            raise RowError(f"Row {row_label(row)} cannot be trained on: {error}", reason) from error
