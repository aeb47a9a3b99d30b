"""What each process does of a list that several work on. No torch: `torchrun` and `accelerate launch` say it all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

Entry = TypeVar("Entry")


def place_in_world() -> tuple[int, int]:
    """This process's number and how many there are, as `torchrun` and `accelerate launch` say; else `(0, 1)`.

    Raises:
        ValueError: if what they say cannot be.
    """
    rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdigit() and world.isdigit() and int(rank) < int(world)):
        raise ValueError(f"RANK is '{rank}' and WORLD_SIZE is '{world}', which cannot be; start with torchrun.")
    return int(rank), int(world)


def cut_batches(groups: Sequence[Sequence[Entry]], batch_size: int) -> list[list[Entry]]:
    """Batches of the whole list, whoever will do them; none has entries of two groups.

    Raises:
        ValueError: for a batch size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"The batch size must be at least 1, but is {batch_size}.")
    return [list(group[start : start + batch_size]) for group in groups for start in range(0, len(group), batch_size)]
