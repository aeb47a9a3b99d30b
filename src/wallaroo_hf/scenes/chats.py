"""Chats of one to four turns in auto mode: draw, change what was drawn, ask about it, talk; and the judge of answers.

A row is what a chat feeds the model when it is to answer the last turn (`wallaroo_hf.Conversation`): a picture that was
drawn stands in the user's next turn, and not in the answer that drew it. The picture comes first and its description after
it, so that codes follow the same tokens as in a drawing or an edit without a chat; what was learned there holds here.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .captions import CAPTION_CATEGORIES, plan_caption, say_caption
from .edits import plan_edit_of, say_edit, settle
from .phrases import Speaker, describe
from .questions import answer, plan_question_about
from .reading import read_scene
from .scene import MAX_OBJECTS, Scene, random_scene, random_size
from .specs import AnswerSpec, ObjectSpec
from .splits import OPERATIONS, QUESTIONS, Combination, admits, split_of
from .talk import TALK, is_reply
from .tasks import Row, turn
from .verify import Picture, Verdict, check_answer, check_caption, check_edit
from .words import LANGUAGES

CHAT_TURNS = ("draw", "edit", "question", "talk")
_LAST_SHARES = (0.28, 0.28, 0.22, 0.22)
_LATER_SHARES = (0.1, 0.4, 0.3, 0.2)
_FIRST_SHARES = (0.8, 0.0, 0.0, 0.2)
# how many turns come before the last one; about a picture that nobody drew the user shows it
_NUM_EARLIER = {"draw": (0.5, 0.2, 0.2, 0.1), "talk": (0.3, 0.3, 0.25, 0.15)}
_NUM_EARLIER_ABOUT = (0.15, 0.45, 0.25, 0.15)
_TRIES_PER_TURN = 60  # with one picture; a picture may have nothing that the split admits
_MAX_TRIES = 20_000


class _Turn(NamedTuple):
    """A turn before it is put into words.

    `scene` is the picture that it is about, or None; `after` is the picture that is drawn, or None; `plan` is a caption's,
    an edit's or a question's, or a kind of `talk.TALK`.
    """

    kind: str
    plan: Any
    scene: Scene | None
    after: Scene | None
    main: tuple[Combination, ...] = ()
    others: tuple[Combination, ...] = ()


def make_chat(
    seed: int,
    index: int,
    split: str = "train",
    category: str | None = None,
    language: str | None = None,
    size: tuple[int, int] | None = None,
    settled: bool = False,
) -> Row:
    """One chat, without pictures: equal arguments give equal rows, and what is not given is left to chance.

    Args:
        seed: the data set's seed.
        index: the row's index; the row depends on no other.
        split: one of `splits.SPLITS`; a held-out one holds out what the last turn is about (talk is about nothing).
        category: what the user wants last, one of `CHAT_TURNS`.
        language: "en" or "zh".
        size: `(height, width)` in pixels of all pictures.
        settled: whether edits put objects into the first place that fits, see [`wallaroo_hf.scenes.edits.settle`].

    Returns:
        A row as of [`tasks.make_row`] with the task "chat" and three more entries: `shown`, the scenes of the pictures in
        the user's turns; `height` and `width` of all pictures. `scene` is the picture that the last turn is about, and
        `spec` the last turn's (`{"talk": ...}` for talk).

    Raises:
        RuntimeError: if no chat of that kind turned up; with the arguments above that does not happen.
    """
    rng = random.Random(f"{seed}/{split}/{index}/chat/{category}/{language}/{size}")
    category = category or rng.choices(CHAT_TURNS, _LAST_SHARES)[0]
    language = language or rng.choice(LANGUAGES)
    size = size or random_size(rng)
    for _ in range(_MAX_TRIES):
        turns = _plan_turns(rng, category, size, split, settled)
        if turns is not None:
            break
    else:
        raise RuntimeError(f"no chat that ends with {category!r} was found for the split {split!r}")
    messages, shown = _say(turns, Speaker(language, rng))
    last = turns[-1]
    others = [one for earlier in turns[:-1] for one in (*earlier.main, *earlier.others)]
    spec = last.plan.spec
    if last.kind == "question":
        spec = dataclasses.replace(spec, language=language)
    return {
        "messages": messages,
        "task": "chat",
        "category": category,
        "language": language,
        "prompt": messages[-2]["content"][-1]["text"],
        "height": size[0],
        "width": size[1],
        "shown": [scene.to_dict() for scene in shown],
        "scene": None if last.scene is None else last.scene.to_dict(),
        "target_scene": None if last.after is None else last.after.to_dict(),
        "spec": spec.to_dict(),
        "combinations": {
            "main": [list(one) for one in last.main],
            "others": [list(one) for one in (*last.others, *others)],
        },
    }


# ------------------------------------------------------------------------------------------------------------- plans


class _Talk(NamedTuple):
    """What talk is about, in place of a plan and of its specification."""

    kind: str

    @property
    def spec(self) -> _Talk:
        return self

    def to_dict(self) -> dict[str, str]:
        return {"talk": self.kind}


def _plan_turns(
    rng: random.Random, category: str, size: tuple[int, int], split: str, settled: bool
) -> list[_Turn] | None:
    """The turns of a chat; None if chance led to a picture of which the split admits nothing."""
    earlier = rng.choices(range(4), _NUM_EARLIER.get(category, _NUM_EARLIER_ABOUT))[0]
    turns: list[_Turn] = []
    scene = None
    for number in range(earlier + 1):
        kind = category
        if number < earlier:
            kind = rng.choices(CHAT_TURNS, _FIRST_SHARES if scene is None else _LATER_SHARES)[0]
        if kind in ("edit", "question") and scene is None:
            scene = random_scene(rng, size)
        found = _admitted(rng, kind, scene, size, split, number == earlier)
        if found is not None and kind == "edit" and settled:
            plan = settle(found.plan)
            found = found._replace(plan=plan, after=plan.target, others=_told(plan.target))
        if found is None:
            return None
        turns.append(found)
        scene = found.after or scene
    return turns


def _admitted(
    rng: random.Random, kind: str, scene: Scene | None, size: tuple[int, int], split: str, is_last: bool
) -> _Turn | None:
    """A turn that the split admits; only the last one has to be about what is held out."""
    held_out = is_last and split != "train"
    for _ in range(_TRIES_PER_TURN):
        found = _plan_turn(rng, kind, scene, size, held_out)
        if found is None:
            continue
        shown = {split_of(one) for one in (*found.main, *found.others)}
        if admits(split, found.main, found.others) if held_out and found.main else shown <= {"train", split}:
            return found
    return None


def _plan_turn(
    rng: random.Random, kind: str, scene: Scene | None, size: tuple[int, int], held_out: bool
) -> _Turn | None:
    """A turn of a kind, or None if the picture does not allow what chance led to."""
    if kind == "talk":
        return _Turn(kind, _Talk(rng.choice(list(TALK))), None, None)
    if kind == "draw":
        plan: Any = plan_caption(rng, rng.choice(CAPTION_CATEGORIES), held_out, size)
        return _Turn(kind, plan, None, plan.scene, plan.main, (*plan.others, *_told(plan.scene)))
    assert scene is not None
    if kind == "question":
        plan = plan_question_about(rng, rng.choice(QUESTIONS), scene)
        return None if plan is None else _Turn(kind, plan, scene, None, plan.main)
    plan = plan_edit_of(rng, rng.choice(OPERATIONS), scene)
    if plan is None or not 0 < len(plan.target.objects) <= MAX_OBJECTS:
        return None
    return _Turn(kind, plan, scene, plan.target, plan.main, _told(plan.target))


def _told(scene: Scene) -> tuple[Combination, ...]:
    """What the words after a picture say."""
    return tuple(Combination(thing.shape, thing.colour, "describe") for thing in scene.objects)


# ------------------------------------------------------------------------------------------------------------- words


def _say(turns: Sequence[_Turn], speaker: Speaker) -> tuple[list[dict[str, Any]], list[Scene]]:
    """The messages, and the scenes of the pictures in the user's turns.

    A picture stands in the turn after the one that drew it, see `processing.next_turn.continue_chat`; one that nobody drew
    is shown with the first words about it.
    """
    messages: list[dict[str, Any]] = []
    shown: list[Scene] = []
    drawn: Scene | None = None
    for number, one in enumerate(turns):
        seen = drawn if drawn is not None else one.scene if not shown else None
        messages.append(turn("user", *(() if seen is None else (None,)), _ask(one, speaker)))
        shown += [] if seen is None else [seen]
        drawn = one.after
        is_drawn_now = drawn is not None and number == len(turns) - 1
        messages.append(turn("assistant", *((None,) if is_drawn_now else ()), _answer(one, speaker.language)))
    return messages, shown


def _ask(one: _Turn, speaker: Speaker) -> str:
    if one.kind == "talk":
        return speaker.pick(TALK[one.plan.kind][speaker.language][0])
    if one.kind == "draw":
        return say_caption(one.plan.spec, speaker, request=True)
    return say_edit(one.plan.spec, speaker) if one.kind == "edit" else speaker.sentence(one.plan.ask(speaker))


def _answer(one: _Turn, language: str) -> str:
    """The words of an answer, without its picture."""
    if one.after is not None:
        return describe(one.after, language)
    return TALK[one.plan.kind][language][1] if one.scene is None else answer(one.plan.spec, one.scene, language)


# ------------------------------------------------------------------------------------------------------------- judge


def check_reply(row: Mapping[str, Any], pieces: Sequence[str | Picture]) -> Verdict:
    """Whether an answer does what the last turn of a chat asks for, and nothing else.

    Drawing and editing take one picture that meets the specification, and words after it that say what it shows. A question
    takes a right answer without a picture, talk the reply that belongs to it, in the user's language.

    Args:
        row: a row of [`make_chat`].
        pieces: texts and pictures of the answer, in order.
    """
    kind, spec, language = row["category"], row["spec"], row["language"]
    pictures = [place for place, piece in enumerate(pieces) if not isinstance(piece, str)]
    expected = int(kind in ("draw", "edit"))
    if len(pictures) != expected:
        return Verdict(False, f"{expected} pictures expected, found {len(pictures)}")
    if not pictures:
        said = "".join(str(piece) for piece in pieces).strip()
        if kind == "question":
            return check_answer(said, spec)
        is_right = is_reply(said, spec["talk"], language)
        return Verdict(is_right, "" if is_right else f"{said!r} is no reply to {spec['talk']}")
    picture = pieces[pictures[0]]
    assert not isinstance(picture, str)
    scene = read_scene(picture)
    verdict = check_caption(scene, spec) if kind == "draw" else check_edit(row["scene"], scene, spec)
    if not verdict or not scene.objects:
        return verdict
    kinds: dict[tuple[str | None, str | None], int] = {}
    for thing in scene.objects:
        kinds[thing.shape, thing.colour] = kinds.get((thing.shape, thing.colour), 0) + 1
    objects = tuple(ObjectSpec(shape, colour, count) for (shape, colour), count in kinds.items())
    told = "".join(str(piece) for piece in pieces[pictures[0] + 1 :]).strip()
    return check_answer(told, AnswerSpec("objects", objects=objects, background=scene.background, language=language))
