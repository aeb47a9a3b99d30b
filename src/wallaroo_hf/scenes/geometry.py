"""Where things are: named places of a picture, and how two objects lie to each other.

A picture is cut into thirds on both axes, by slots: of four slots in a row the first is left, the last right, and both
others middle; of two, one is left and one right. A *place* names a third on both axes (`"top_left"`, `"centre"`) or on
one (`"left"`: anywhere along the left side).
"""

from __future__ import annotations

SIDES = ("left", "right", "top", "bottom")
CELLS = (
    "top_left", "top_middle", "top_right",
    "middle_left", "centre", "middle_right",
    "bottom_left", "bottom_middle", "bottom_right",
)  # fmt: skip
PLACES = CELLS + SIDES
DIRECTIONS = ("left_of", "right_of", "above", "below")
INVERSE = {"left_of": "right_of", "right_of": "left_of", "above": "below", "below": "above"}

Point = tuple[float, float]


def third(index: int, count: int) -> int:
    """In which third (0, 1 or 2) of `count` slots the slot `index` lies."""
    return min(2, (3 * (2 * index + 1)) // (2 * count))


def cell(slot: tuple[int, int], grid: tuple[int, int]) -> str:
    """The name, one of `CELLS`, of the place of a slot.

    Args:
        slot: `(row, col)`.
        grid: numbers of `(rows, cols)`.
    """
    return CELLS[3 * third(slot[0], grid[0]) + third(slot[1], grid[1])]


def is_at(place: str, slot: tuple[int, int], grid: tuple[int, int]) -> bool:
    """Whether a slot is at a place, one of `PLACES`. Arguments as in [`cell`]."""
    if place in CELLS:
        return cell(slot, grid) == place
    axis, wanted = {"top": (0, 0), "bottom": (0, 2), "left": (1, 0), "right": (1, 2)}[place]
    return third(slot[axis], grid[axis]) == wanted


def holds(direction: str, first: Point, second: Point, margin: float) -> bool:
    """Whether `first` lies in a direction from `second`, at least `margin` away along that axis.

    Args:
        direction: one of `DIRECTIONS`.
        first: `(y, x)`, downwards and to the right, in the unit of `margin`.
        second: the same.
    """
    dy, dx = first[0] - second[0], first[1] - second[1]
    return {"left_of": -dx, "right_of": dx, "above": -dy, "below": dy}[direction] >= margin
