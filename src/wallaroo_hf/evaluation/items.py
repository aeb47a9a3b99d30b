"""The items of the scenes benchmark: what is shown or asked, dealt out evenly, and how an output is judged."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from PIL import Image

from ..scenes import EditSpec, Prompt, Row, Scene, Verdict, check_edit, check_reply, make_chat, make_row, random_scene
from ..scenes.chats import CHAT_TURNS
from ..scenes.compositions import COMPOSITIONS, make_composition
from ..scenes.scene import MAX_OBJECTS, SIZES
from ..scenes.splits import SPLITS, Combination, admits
from ..scenes.tasks import CATEGORIES
from ..scenes.words import LANGUAGES

TASKS = ("reconstruction", "generation", "understanding", "editing", "chat")
ALL_TASKS = (*TASKS, "composition")  # the last one only where it is asked for: no released checkpoint learned it
NUM_OBJECTS = ("one_object", "two_objects", "three_objects", "four_objects")  # the categories of reconstruction
assert len(NUM_OBJECTS) == MAX_OBJECTS
Output: TypeAlias = "Image.Image | str | list[str | Image.Image]"
_TRIES_PER_ITEM = 1 << 16  # indices of rows that an item may look through for its size
_ITEMS_PER_TASK = 1 << 32


@dataclass(frozen=True)
class Item:
    """One thing that a model has to do.

    Attributes:
        name: task and number, e.g. "editing-0007".
        task: one of `ALL_TASKS`.
        category: how scores are grouped.
        language: "en" or "zh"; None for a reconstruction.
        height: of the picture drawn or shown, in pixels.
        width: likewise.
        scene: the picture that is rebuilt, asked about or edited; None for a drawing.
        prompt: the words and what is judged; None for a reconstruction, which must show its scene again, and for a chat.
        seed: of the noise that its drawing is sampled with, so that it is the same in any batch.
        chat: a chat in auto mode, of which the last turn is to be answered, see `scenes.chats`.
        references: pictures that are shown before the one that is edited.
    """

    name: str
    task: str
    category: str
    language: str | None
    height: int
    width: int
    scene: Scene | None
    prompt: Prompt | None
    seed: int
    chat: Row | None = None
    references: tuple[Scene, ...] = ()

    @property
    def size(self) -> str:
        """Height and width in pixels, e.g. "64x128"."""
        return f"{self.height}x{self.width}"

    def judge(self, output: Output) -> Verdict:
        """Judges a picture, an answer's text, or the pieces of a chat's answer, by the scenes' exact judge.

        Raises:
            TypeError: for an output of another kind.
        """
        if (self.chat is not None) != isinstance(output, list):
            raise TypeError(
                f"{self.name} is judged by {'pieces' if self.chat else 'one'}, not by {type(output).__name__}"
            )
        if self.chat is not None and isinstance(output, list):
            return check_reply(self.chat, output)
        assert not isinstance(output, list)
        if self.prompt is not None:
            return self.prompt.judge(output)
        if self.scene is None or isinstance(output, str):
            raise TypeError(f"{self.name} is judged by a picture, not by {type(output).__name__}")
        # the edit that changes nothing: same size, background and objects, each where it was
        return check_edit(self.scene, output, EditSpec("background", background=self.scene.background))

    def to_dict(self) -> dict[str, Any]:
        """Everything that decides the item, as plain JSON-able values."""
        asked = self.chat or ({} if self.prompt is None else self.prompt.to_dict())
        shown: dict[str, Any] = {} if self.scene is None else {"scene": self.scene.to_dict()}
        if self.references:
            shown["references"] = [scene.to_dict() for scene in self.references]
        return {**asked, **shown, "name": self.name, "task": self.task, "category": self.category, "seed": self.seed}


def scene_items(task: str, num_items: int, split: str = "test", seed: int = 0) -> list[Item]:
    """The benchmark's items of a task.

    Categories, languages and the sizes of `scenes.scene.SIZES` come in turn, so that each has its share in any number of
    items; the first items of a larger number are the same.

    Args:
        task: one of `ALL_TASKS`.
        num_items: how many.
        split: one of `scenes.splits.SPLITS`; "test" combines shapes, colours and relations as training never does.
        seed: another seed gives other items, and other noise to draw with.

    Raises:
        ValueError: for an unknown task or split, or fewer than one item.
    """
    _check_names("task", [task], ALL_TASKS)
    _check_names("split", [split], SPLITS)
    if num_items < 1:
        raise ValueError(f"The number of items must be at least 1, but is {num_items}.")
    make = {"reconstruction": _reconstruction, "chat": _chat, "composition": _composition}.get(task, _prompted)
    return [make(task, number, split, seed) for number in range(num_items)]


def prompt_items(prompts: Sequence[Prompt], seed: int = 0) -> dict[str, list[Item]]:
    """Items of one's own prompts by task, in the order of `TASKS`, each list in the order given.

    Args:
        prompts: see `scenes.prompts`.
        seed: of the noise to draw with.
    """
    by_task: dict[str, list[Item]] = {}
    for task in TASKS:
        chosen = [prompt for prompt in prompts if prompt.task == task]
        if chosen:
            by_task[task] = [_item(prompt, number, seed) for number, prompt in enumerate(chosen)]
    return by_task


def items_hash(items: Iterable[Item]) -> str:
    """SHA-256 of all that decides some items."""
    text = json.dumps([item.to_dict() for item in items], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_names(kind: str, given: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"Unknown {kind} {unknown[0]!r}; use {', '.join(known)}.")


def _turn(number: int, *choices: Sequence[Any]) -> list[Any]:
    """The choices that are an item's turn; the first ones change fastest."""
    chosen = []
    for options in choices:
        number, which = divmod(number, len(options))
        chosen.append(options[which])
    return chosen


def _prompted(task: str, number: int, split: str, seed: int) -> Item:
    category, language, (height, width) = _turn(number, CATEGORIES[task], LANGUAGES, SIZES)
    first = (
        TASKS.index(task) * _ITEMS_PER_TASK + number * _TRIES_PER_ITEM
    )  # indices of rows that no other item looks at
    for index in itertools.count(first):  # one in two, or one in four, has the size
        row = make_row(seed, index, split, task, category, language)
        picture = row["scene"] or row["target_scene"]
        if (picture["height"], picture["width"]) == (height, width):
            return _item(Prompt.from_dict(row), number, seed)
    raise AssertionError("counting has no end")


def _item(prompt: Prompt, number: int, seed: int) -> Item:
    name = _name(prompt.task, number)
    return Item(
        name,
        prompt.task,
        prompt.category,
        prompt.language,
        prompt.height,
        prompt.width,
        prompt.scene,
        prompt,
        _noise_seed(seed, name),
    )


def _reconstruction(task: str, number: int, split: str, seed: int) -> Item:
    """A scene with a held-out combination of the split that descriptions go by."""
    category, (height, width) = _turn(number, NUM_OBJECTS, SIZES)
    name = _name(task, number)
    rng = random.Random(f"{seed}/{split}/{name}")
    while True:
        scene = random_scene(rng, (height, width), 1 + NUM_OBJECTS.index(category))
        if admits(split, [Combination(thing.shape, thing.colour, "describe") for thing in scene.objects]):
            return Item(name, task, category, None, height, width, scene, None, _noise_seed(seed, name))


def _chat(task: str, number: int, split: str, seed: int) -> Item:
    """A chat; the turns before the last one are as they should have been."""
    category, language, (height, width) = _turn(number, CHAT_TURNS, LANGUAGES, SIZES)
    row = make_chat(seed, number, split, category, language, (height, width))
    name = _name(task, number)
    shown = Scene.from_dict(row["shown"][-1]) if row["shown"] else None
    return Item(name, task, category, language, height, width, shown, None, _noise_seed(seed, name), row)


def _composition(task: str, number: int, split: str, seed: int) -> Item:
    """An edit of two pictures, judged as an edit of the second one."""
    category, language, (height, width) = _turn(number, list(COMPOSITIONS), LANGUAGES, SIZES)
    row = make_composition(seed, number, split, category, language, (height, width))
    reference, scene = (Scene.from_dict(shown) for shown in row["shown"])
    spec = EditSpec.from_dict(row["spec"])
    prompt = Prompt("editing", row["prompt"], spec, height, width, scene, language, category)
    name = _name(task, number)
    noise = _noise_seed(seed, name)
    return Item(name, task, category, language, height, width, scene, prompt, noise, references=(reference,))


def _name(task: str, number: int) -> str:
    return f"{task}-{number:04d}"


def _noise_seed(seed: int, name: str) -> int:
    return random.Random(f"{seed}/{name}").getrandbits(62)
