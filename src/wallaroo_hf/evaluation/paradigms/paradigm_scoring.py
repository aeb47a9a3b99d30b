"""What a trained model of a paradigm is worth: verdicts by task, first failures, what was forgotten, what drawing costs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import torch

from ...families.abilities import EDITING, GENERATION, UNDERSTANDING
from ...pictures.opening import open_image
from ...scenes import CaptionSpec
from ...scenes.caption_parts import FAILURES, first_failure
from ..drawing_settings import read_sampling
from ..identity import checkpoint_hash
from ..item_outputs import Subject, evaluation_mode, make_outputs
from ..items import Item
from ..results import PICTURES
from ..scenes import MAX_NEW_TOKENS, judge_items
from ..scores import score_task
from .measured_training import Clock, counting_flops

__all__ = ["RIGHT", "Values", "drawing_costs", "judge_run", "read_values", "share_right", "subject_of"]

RIGHT, FORGOTTEN = "right", "forgotten"
_NEEDS = {"generation": GENERATION, "editing": EDITING, "understanding": UNDERSTANDING}
_BATCH_SIZE = 16
_TIMED = 6  # pictures that are drawn one by one
Values = dict[str, dict[str, list[float | None]]]
Progress = Callable[[str, int, int], None]


def subject_of(model: Any, processor: Any) -> Subject:
    """A model as it is examined: with its own settings of drawing."""
    subject = Subject(model, processor, None, MAX_NEW_TOKENS)  # type: ignore[arg-type]  # its abilities say the settings
    return Subject(model, processor, read_sampling(subject.abilities, {}), MAX_NEW_TOKENS)


def share_right(subject: Subject, items: Sequence[Item]) -> float:
    """The share of items that are right, as a mean over their categories.

    Args:
        subject: who draws or answers.
        items: of one task.
    """
    good: dict[str, bool] = {}
    for start in range(0, len(items), _BATCH_SIZE):
        chosen = items[start : start + _BATCH_SIZE]
        for item, output in zip(chosen, make_outputs(subject, chosen), strict=True):
            good[item.name] = bool(item.judge(output))
    return score_task(items, good)["all"].overall.value


def judge_run(subject: Subject, items: Mapping[str, Sequence[Item]], folder: Path, progress: Progress) -> list[str]:
    """Has a model do all items that it can, or what is left of them, into a folder as of `wallaroo evaluate scenes`.

    Args:
        subject: who does it.
        items: by task.
        folder: for the verdicts and pictures.
        progress: called as `progress(task, done, total)`.

    Returns:
        The tasks that it can.
    """
    can = {task: list(own) for task, own in items.items() if _NEEDS[task] in subject.abilities.tasks}
    origin = {"checkpoint": checkpoint_hash(subject.model, subject.processor), "split": "test", "seed": 0}
    judge_items(subject, can, folder, origin, _BATCH_SIZE, True, progress)
    return list(can)


def read_values(
    items: Mapping[str, Sequence[Item]], good: Mapping[str, bool], folder: Path, base: Mapping[str, bool]
) -> Values:
    """Numbers by task and metric, one per item; None where an item has none.

    "right" is 0 or 1. Of pictures drawn from captions, each of `scenes.caption_parts.FAILURES` is 1 where it is the first
    thing wrong. Of questions that the language model answered rightly before, "forgotten" is 1 where it no longer does.

    Args:
        items: by task.
        good: verdicts by item.
        folder: of the verdicts.
        base: verdicts on the language model's own answers.
    """
    values: Values = {}
    for task, own in items.items():
        values[task] = {RIGHT: [float(good[item.name]) for item in own]}
        if task == "generation":
            first = [None if good[item.name] else _first_failure(item, folder) for item in own]
            values[task] |= {name: [float(found == name) for found in first] for name in FAILURES}
        if task == "understanding" and base:
            lost = [float(not good[item.name]) if base.get(item.name) else None for item in own]
            values[task][FORGOTTEN] = lost
    return values


def _first_failure(item: Item, folder: Path) -> str | None:
    assert item.prompt is not None and isinstance(item.prompt.spec, CaptionSpec)
    return first_failure(open_image(folder / PICTURES / f"{item.name}.png"), item.prompt.spec)


def drawing_costs(
    subject: Subject, items: Sequence[Item], counted: Mapping[str, str], device: torch.device
) -> dict[str, Any]:
    """What a picture takes when it is drawn by itself, with the model's own settings.

    Args:
        subject: who draws.
        items: captions; the first ones are drawn.
        counted: modules by what they are called, see [`wallaroo_hf.families.paradigm_contract.FamilyParadigm`].
        device: where.

    Returns:
        `seconds` (the median), `flops` of one, and `forwards` of one: for each module how often it is run. Pictures with
        and without words that are drawn for guidance go through it together, as one.
    """
    clock, seconds = Clock(device), []
    with evaluation_mode(subject.model):
        for item in items[: _TIMED + 1]:
            began = clock.now()
            make_outputs(subject, [item])
            seconds.append(clock.now() - began)
        forwards = dict.fromkeys(counted, 0)
        with ExitStack() as stack:
            for name, path in counted.items():

                def count(module: Any, inputs: Any, output: Any, name: str = name) -> None:
                    forwards[name] += 1

                whole = cast(torch.nn.Module, subject.model)
                handle = whole.get_submodule(path).register_forward_hook(count)
                stack.callback(handle.remove)
            make_outputs(subject, items[:1])
        with counting_flops() as counter:
            make_outputs(subject, items[:1])
    return {
        "seconds": statistics.median(seconds[1:] or seconds),  # the first one warms up
        "flops": float(counter.get_total_flops()),
        "forwards": forwards,
    }
