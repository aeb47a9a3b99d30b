"""What a caption, a question or an instruction asks for, as plain values that can be written to JSON.

Each class reads the dictionary of the same name in a prompt file (see `prompts.py`); keys with the value None may be left
out there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .geometry import DIRECTIONS, PLACES
from .palette import BACKGROUNDS, COLOURS
from .scene import Scene, SceneObject
from .shapes import SHAPES
from .splits import OPERATIONS

T = TypeVar("T")

# operation -> the entries that it must have, and those that it may have beyond them
_EDIT_ENTRIES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "recolour": (("object", "colour"), ()),
    "add": (("shape", "colour"), ("place", "direction", "anchor")),
    "remove": (("object",), ()),
    "replace": (("object", "shape"), ("colour",)),
    "move": (("object",), ("place", "direction", "anchor")),
    "background": (("background",), ()),
}
_ANSWER_VALUES: dict[str, Sequence[str] | None] = {
    "shape": SHAPES,
    "colour": COLOURS + BACKGROUNDS,
    "place": PLACES,
    "direction": DIRECTIONS,
    "yes_no": ("yes", "no"),
    "exists": ("yes", "no"),
    "number": None,
    "objects": None,
}


def _check_choice(kind: str, value: object, choices: Sequence[str]) -> None:
    if value is not None and value not in choices:
        raise ValueError(f"unknown {kind} {value!r}: use one of {', '.join(choices)}")


def _read(cls: type[T], kind: str, values: Mapping[str, Any]) -> T:
    """A dataclass from a dictionary, with an error that names keys that are unknown or missing."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{kind} must be a dictionary, not {values!r}")
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    required = {field.name for field in fields if field.default is dataclasses.MISSING}
    unknown, missing = set(values) - {field.name for field in fields}, required - set(values)
    if unknown or missing:
        fault = f"has the unknown key {min(unknown)!r}" if unknown else f"lacks the key {min(missing)!r}"
        raise ValueError(f"{kind} {fault}: it takes {', '.join(field.name for field in fields)}")
    return cls(**values)


def _plain(value: Any) -> dict[str, Any]:
    """A dataclass as JSON-able values, without the entries that say nothing."""

    def keep(items: list[tuple[str, Any]]) -> dict[str, Any]:
        return {
            key: [list(part) if isinstance(part, tuple) else part for part in entry]
            if isinstance(entry, tuple)
            else entry
            for key, entry in items
            if entry is not None and entry != ()
        }

    return dataclasses.asdict(value, dict_factory=keep)


@dataclass(frozen=True)
class ObjectSpec:
    """Some objects that are alike; what is None is left open.

    Args:
        shape: one of `shapes.SHAPES`.
        colour: one of `palette.COLOURS`.
        count: how many, at least 1.
        place: where each of them is, one of `geometry.PLACES`.
    """

    shape: str | None = None
    colour: str | None = None
    count: int = 1
    place: str | None = None

    def __post_init__(self) -> None:
        _check_choice("shape", self.shape, SHAPES)
        _check_choice("object colour", self.colour, COLOURS)
        _check_choice("place", self.place, PLACES)
        if not isinstance(self.count, int) or self.count < 1:
            raise ValueError(f"a count must be a whole number of at least 1, not {self.count!r}")


@dataclass(frozen=True)
class CaptionSpec:
    """What a picture must show: exactly these objects, and no more.

    Args:
        objects: the objects, alike ones together.
        relations: triples `(first, direction, second)` of indices into `objects` and one of `geometry.DIRECTIONS`.
        background: one of `palette.BACKGROUNDS`, or None if left open.

    Raises:
        ValueError: for an unknown name, an index out of range, or a relation of an entry to itself.
    """

    objects: tuple[ObjectSpec, ...]
    relations: tuple[tuple[int, str, int], ...] = ()
    background: str | None = None

    def __post_init__(self) -> None:
        _check_choice("background", self.background, BACKGROUNDS)
        for relation in self.relations:
            if len(relation) != 3 or not {relation[0], relation[2]} <= set(range(len(self.objects))):
                raise ValueError(
                    f"the relation {relation!r} must be [first, direction, second] with indices of the "
                    f"{len(self.objects)} entries of `objects`, from 0"
                )
            if relation[0] == relation[2]:
                raise ValueError(
                    f"the relation {relation!r} is of entry {relation[0]} of `objects` to itself; name two entries"
                )
            _check_choice("direction", relation[1], DIRECTIONS)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values; `from_dict` reads them back."""
        return _plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CaptionSpec:
        """The inverse of `to_dict`.

        Raises:
            ValueError: for unknown or missing keys, and bad values.
        """
        values = dict(values)
        if "objects" in values:
            values["objects"] = tuple(
                _read(ObjectSpec, "an object of a caption", entry) for entry in values["objects"]
            )
        if "relations" in values:
            values["relations"] = tuple(tuple(relation) for relation in values["relations"])
        return _read(cls, "the specification of a caption", values)


@dataclass(frozen=True)
class AnswerSpec:
    """What an answer must say.

    Args:
        kind: what is asked for: "shape", "colour", "place", "direction", "yes_no", "exists", "number" or "objects".
        value: the answer: a name of that kind ("yes" or "no" for "yes_no" and for "exists", which asks whether there is
            something), a number, or None for "objects".
        objects: for "objects": what must be listed, each with shape, colour and count, in any order.
        background: for "objects": the background that must be named, or None if it need not be.
        language: "en" or "zh" if the answer must be in that language; None accepts both.

    Raises:
        ValueError: for an unknown name, or a value that does not fit the kind.
    """

    kind: str
    value: str | int | None = None
    objects: tuple[ObjectSpec, ...] = ()
    background: str | None = None
    language: str | None = None

    def __post_init__(self) -> None:
        _check_choice("kind of answer", self.kind, tuple(_ANSWER_VALUES))
        _check_choice("background", self.background, BACKGROUNDS)
        _check_choice("language", self.language, ("en", "zh"))
        choices = _ANSWER_VALUES[self.kind]
        if self.kind == "objects":
            fits = self.value is None and bool(self.objects)
            fits = fits and all(thing.shape and thing.colour for thing in self.objects)
        elif self.kind == "number":
            fits = isinstance(self.value, int) and self.value >= 0
        else:
            fits = choices is not None and self.value in choices
        if not fits or (self.kind != "objects" and (self.objects or self.background)):
            wanted = (
                "objects with shape and colour, and no value" if self.kind == "objects" else "a value of that kind"
            )
            raise ValueError(f"an answer of kind {self.kind!r} needs {wanted}, not {self.to_dict()}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values; `from_dict` reads them back."""
        return _plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AnswerSpec:
        """The inverse of `to_dict`.

        Raises:
            ValueError: for unknown or missing keys, and bad values.
        """
        values = dict(values)
        if "objects" in values:
            values["objects"] = tuple(
                _read(ObjectSpec, "an object of an answer", entry) for entry in values["objects"]
            )
        return _read(cls, "the specification of an answer", values)


@dataclass(frozen=True)
class Selector:
    """Picks one object of a scene: the one that has all that is not None.

    Args:
        shape: its shape.
        colour: its colour.
        row: the row of its slot.
        col: the column of its slot.
    """

    shape: str | None = None
    colour: str | None = None
    row: int | None = None
    col: int | None = None

    def __post_init__(self) -> None:
        _check_choice("shape", self.shape, SHAPES)
        _check_choice("object colour", self.colour, COLOURS)

    def pick(self, scene: Scene) -> SceneObject:
        """The object that is meant.

        Raises:
            ValueError: if there is none or more than one in the scene.
        """
        wanted = {key: value for key, value in dataclasses.asdict(self).items() if value is not None}
        found = [thing for thing in scene.objects if all(getattr(thing, key) == wanted[key] for key in wanted)]
        if len(found) != 1:
            raise ValueError(f"{wanted} fits {len(found)} objects of the source scene; it must fit exactly one")
        return found[0]


@dataclass(frozen=True)
class EditSpec:
    """What an edit must change; everything else must stay.

    Args:
        operation: one of `splits.OPERATIONS`.
        object: which object changes ("recolour", "remove", "replace", "move").
        shape: the new object's shape ("add", "replace").
        colour: the new colour ("recolour", "add"; "replace": None keeps the replaced object's).
        place: where the object must be afterwards ("add", "move"), one of `geometry.PLACES`.
        direction: where it must be as seen from `anchor`, one of `geometry.DIRECTIONS`; without `place` and `direction` an
            added object may be anywhere, and a moved one anywhere else.
        anchor: an object of the source scene that stays.
        background: the new background ("background").

    Raises:
        ValueError: for an unknown name, or an entry that the operation lacks or does not take.
    """

    operation: str
    object: Selector | None = None
    shape: str | None = None
    colour: str | None = None
    place: str | None = None
    direction: str | None = None
    anchor: Selector | None = None
    background: str | None = None

    def __post_init__(self) -> None:
        if self.operation not in OPERATIONS:
            raise ValueError(f"unknown operation {self.operation!r}: use one of {', '.join(OPERATIONS)}")
        _check_choice("shape", self.shape, SHAPES)
        _check_choice("object colour", self.colour, COLOURS)
        _check_choice("place", self.place, PLACES)
        _check_choice("direction", self.direction, DIRECTIONS)
        _check_choice("background", self.background, BACKGROUNDS)
        needed, possible = _EDIT_ENTRIES[self.operation]
        given = {key for key in self.__dataclass_fields__ if key != "operation" and getattr(self, key) is not None}
        if not set(needed) <= given <= {*needed, *possible} or (self.direction is None) != (self.anchor is None):
            raise ValueError(
                f"the edit {self.operation!r} takes {', '.join(needed)}"
                + (f" and may take {', '.join(possible)} (direction and anchor together)" if possible else "")
                + f", but was given {', '.join(sorted(given)) or 'nothing'}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values; `from_dict` reads them back."""
        return _plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EditSpec:
        """The inverse of `to_dict`.

        Raises:
            ValueError: for unknown or missing keys, and bad values.
        """
        values = dict(values)
        for key in ("object", "anchor"):
            if values.get(key) is not None:
                values[key] = _read(Selector, f"the {key} of an edit", values[key])
        return _read(cls, "the specification of an edit", values)
