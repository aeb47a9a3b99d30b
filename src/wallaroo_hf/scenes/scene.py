"""What a picture shows: a background and up to a few objects, each in a slot of its own."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .palette import BACKGROUNDS, COLOURS
from .shapes import SHAPES, SLOT

SIZES = ((96, 96), (64, 128), (128, 64))  # (height, width) in pixels
MAX_OBJECTS = 4


def _check_choice(kind: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"unknown {kind} {value!r}: use one of {', '.join(choices)}")


@dataclass(frozen=True, order=True)
class SceneObject:
    """One object. Objects sort in reading order.

    Args:
        row: Row of its slot, from the top, starting at 0.
        col: Column of its slot, from the left, starting at 0.
        shape: One of `shapes.SHAPES`.
        colour: One of `palette.COLOURS`.
    """

    row: int
    col: int
    shape: str
    colour: str

    def __post_init__(self) -> None:
        _check_choice("shape", self.shape, SHAPES)
        _check_choice("object colour", self.colour, COLOURS)
        if not isinstance(self.row, int) or not isinstance(self.col, int):
            raise ValueError(f"row and col of a slot must be whole numbers, not {self.row!r} and {self.col!r}")


@dataclass(frozen=True)
class Scene:
    """A picture's content. Two scenes are equal exactly if their pictures are.

    Args:
        height: Height in pixels, a multiple of `SLOT`.
        width: Width in pixels, a multiple of `SLOT`.
        background: One of `palette.BACKGROUNDS`.
        objects: The objects, at most one per slot; kept in reading order, whatever order they are given in.

    Raises:
        ValueError: If a name is unknown, a side is no multiple of `SLOT`, or a slot is outside or taken twice.
    """

    height: int
    width: int
    background: str
    objects: tuple[SceneObject, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.height, int) or not isinstance(self.width, int):
            raise ValueError(
                f"height and width must be whole numbers of pixels, not {self.height!r} and {self.width!r}"
            )
        if self.height < SLOT or self.width < SLOT or self.height % SLOT or self.width % SLOT:
            raise ValueError(
                f"a scene of {self.height}x{self.width} (height x width) has no whole slots: use multiples of {SLOT}"
            )
        _check_choice("background", self.background, BACKGROUNDS)
        places = [(thing.row, thing.col) for thing in self.objects]
        for row, col in places:
            if not (0 <= row < self.rows and 0 <= col < self.cols):
                raise ValueError(
                    f"slot ({row}, {col}) is outside the {self.rows}x{self.cols} slots of the scene (rows x columns)"
                )
        if len(set(places)) < len(places):
            raise ValueError(f"two objects share a slot: {places}; give each a slot of its own")
        object.__setattr__(self, "objects", tuple(sorted(self.objects)))

    @property
    def rows(self) -> int:
        """Number of rows of slots."""
        return self.height // SLOT

    @property
    def cols(self) -> int:
        """Number of columns of slots."""
        return self.width // SLOT

    def slots(self) -> list[tuple[int, int]]:
        """All slots `(row, col)` in reading order."""
        return [(row, col) for row in range(self.rows) for col in range(self.cols)]

    def free_slots(self) -> list[tuple[int, int]]:
        """The slots without an object, in reading order."""
        taken = {(thing.row, thing.col) for thing in self.objects}
        return [slot for slot in self.slots() if slot not in taken]

    def counts(self) -> dict[tuple[str, str], int]:
        """How many objects of each `(shape, colour)` there are, in reading order of the first."""
        counts: dict[tuple[str, str], int] = {}
        for thing in self.objects:
            counts[thing.shape, thing.colour] = counts.get((thing.shape, thing.colour), 0) + 1
        return counts

    def to_dict(self) -> dict[str, Any]:
        """The scene as plain JSON-able values; `from_dict` reads it back."""
        objects = [
            {"shape": thing.shape, "colour": thing.colour, "row": thing.row, "col": thing.col}
            for thing in self.objects
        ]
        return {"height": self.height, "width": self.width, "background": self.background, "objects": objects}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Scene:
        """The inverse of `to_dict`.

        Raises:
            ValueError: If a key is missing or unknown, or a value is (see the class).
        """
        _check_keys("scene", values, ("height", "width", "background", "objects"))
        for thing in values["objects"]:
            _check_keys("scene object", thing, ("shape", "colour", "row", "col"))
        objects = tuple(SceneObject(**thing) for thing in values["objects"])
        return cls(values["height"], values["width"], values["background"], objects)


def _check_keys(kind: str, values: Mapping[str, Any], expected: Sequence[str]) -> None:
    if not isinstance(values, Mapping) or set(values) != set(expected):
        given = ", ".join(map(str, values)) if isinstance(values, Mapping) else repr(values)
        raise ValueError(f"a {kind} must be a dictionary with the keys {', '.join(expected)}, not {given or 'none'}")


def random_size(rng: random.Random) -> tuple[int, int]:
    """One of `SIZES`, `(height, width)` in pixels; every second time the square one."""
    return SIZES[0] if rng.random() < 0.5 else rng.choice(SIZES[1:])


def random_scene(rng: random.Random, size: tuple[int, int] | None = None, num_objects: int | None = None) -> Scene:
    """A scene chosen uniformly: background, number of objects, slots, shapes and colours.

    Args:
        rng: Source of randomness; equal states give equal scenes.
        size: `(height, width)` in pixels; see `random_size` if None.
        num_objects: How many objects; 1 to `MAX_OBJECTS` by chance if None.

    Raises:
        ValueError: If there are more objects than slots, or the size has no whole slots.
    """
    height, width = size or random_size(rng)
    empty = Scene(height, width, rng.choice(BACKGROUNDS))
    slots = empty.slots()
    count = rng.randint(1, min(MAX_OBJECTS, len(slots))) if num_objects is None else num_objects
    if count > len(slots):
        raise ValueError(f"{count} objects do not fit into {len(slots)} slots: ask for fewer, or for a larger scene")
    places = rng.sample(slots, count)
    objects = tuple(SceneObject(row, col, rng.choice(SHAPES), rng.choice(COLOURS)) for row, col in places)
    return Scene(height, width, empty.background, objects)
