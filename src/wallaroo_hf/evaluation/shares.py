"""What each process does of a list that several work on. No torch: `torchrun` and `accelerate launch` say it all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Entry = TypeVar("Entry")


def cut_batches(groups: Sequence[Sequence[Entry]], batch_size: int) -> list[list[Entry]]:
    """Batches of the whole list, whoever will do them; none has entries of two groups.

    Raises:
        ValueError: for a batch size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"The batch size must be at least 1, but is {batch_size}.")
    return [list(group[start : start + batch_size]) for group in groups for start in range(0, len(group), batch_size)]
