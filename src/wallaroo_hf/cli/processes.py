"""Which of several processes this one is. Imports nothing that takes time."""

import os


def place_in_world() -> tuple[int, int]:
    """This process's number and how many there are, as `torchrun` and `accelerate launch` say; else `(0, 1)`.

    Raises:
        ValueError: if what they say cannot be.
    """
    rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdigit() and world.isdigit() and int(rank) < int(world)):
        raise ValueError(f"RANK is '{rank}' and WORLD_SIZE is '{world}', which cannot be; start with torchrun.")
    return int(rank), int(world)
