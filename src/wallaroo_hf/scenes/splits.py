"""Train, validation and test by held-out combinations, not by seed.

A *combination* is a triple (shape, attribute, relation): the attribute is most often the object's colour, the relation
what the row says about the object ("alone", "counted_3", "left_of", "where", "recolour", ...). Two relations have other
attributes: `"on"` takes the background that a single drawn object lies on, and `"together"` another shape in the
same picture. A direction whose caption names no colours takes the other shape as its attribute as well.

The combinations are dealt out like a Latin square, `(shape + 3 * attribute + 5 * relation) % 8`: fold 0 is held out for
"test", fold 1 for "validation", the other six are "train". As 3 is odd, every shape loses exactly one of the eight
colours per relation to each held-out split, and every colour one shape: a train row never shows a held-out combination,
yet every shape with every colour, every shape in every relation and every colour in every relation are seen in training.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .geometry import DIRECTIONS
from .palette import BACKGROUNDS, COLOURS
from .shapes import SHAPES

SPLITS = ("train", "validation", "test")
QUESTIONS = ("what", "which_colour", "how_many", "where", "yes_no", "describe")
OPERATIONS = ("recolour", "add", "remove", "replace", "move", "background")
DRAWN = ("alone", "on", "together", "with_other", "counted_2", "counted_3", "counted_4", "placed")
RELATIONS = (*DRAWN, *DIRECTIONS, *QUESTIONS, *OPERATIONS)
NUM_FOLDS = 8

_INDEX = {name: index for names in (SHAPES, COLOURS, BACKGROUNDS) for index, name in enumerate(names)}
_RELATION_INDEX = {name: index for index, name in enumerate(RELATIONS)}


class Combination(NamedTuple):
    """What is held out: see the module. `attribute` is a colour, a background or a shape."""

    shape: str
    attribute: str
    relation: str


def fold(combination: Combination) -> int:
    """The fold, 0 to 7, of a combination."""
    shape, attribute, relation = combination
    return (_INDEX[shape] + 3 * _INDEX[attribute] + 5 * _RELATION_INDEX[relation]) % NUM_FOLDS


def split_of(combination: Combination) -> str:
    """The split, one of `SPLITS`, that a combination belongs to."""
    return {0: "test", 1: "validation"}.get(fold(combination), "train")


def pair(first: str, second: str, direction: str | None = None) -> Combination:
    """The combination of two shapes: together in a picture, or one in a direction from the other.

    Names no order that the picture does not have: "a left of b" is "b right of a".
    """
    if direction in ("right_of", "below"):
        return Combination(second, first, {"right_of": "left_of", "below": "above"}[direction])
    if direction is not None:
        return Combination(first, second, direction)
    first, second = sorted((first, second), key=SHAPES.index)
    return Combination(first, second, "together")


def admits(split: str, main: Iterable[Combination], others: Iterable[Combination] = ()) -> bool:
    """Whether a row belongs to a split.

    Args:
        split: one of `SPLITS`. "train" takes rows without any held-out combination; a held-out split takes rows with one
            of its own combinations among the main ones, and none of the other held-out split anywhere.
        main: the combinations of what the row is about.
        others: further combinations that the row shows.
    """
    about = {split_of(combination) for combination in main}
    shown = about | {split_of(combination) for combination in others}
    if split == "train":
        return shown == {"train"}
    return split in about and shown <= {split, "train"}
