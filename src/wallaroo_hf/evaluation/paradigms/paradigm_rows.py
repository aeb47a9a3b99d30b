"""What all families learn from, and what they are judged by: the same rows in the same order, and the same items."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from ...families.abilities import EDITING, GENERATION, UNDERSTANDING
from ...pictures.opening import open_image
from ...scenes import read_prompts
from ...training.data.mixing import Source, TaskMixture
from ...training.run import load_training_data
from ...training.scenes.scene_rows import Conversations
from ..family_ablations.few_rows import FewEdits, FewRows, few_edit_items, few_items
from ..items import Item, prompt_items, scene_items
from .paradigm_settings import ParadigmSettings

__all__ = ["SHARES", "ParadigmRows", "items_to_judge", "items_to_look_at", "questions_only"]

# Of the scenes: how many rows of each task, relative to each other; a family takes those that it is trained on.
SHARES: Mapping[str, float] = {"generation": 3, "editing": 1, "understanding": 1}
NEEDS: Mapping[str, str] = {"generation": GENERATION, "editing": EDITING, "understanding": UNDERSTANDING}
_QUESTIONS = 4  # about one picture, at most
_FITTED = 400  # pictures that a codec is fitted to
_ENDLESS = 1 << 40  # rows: none comes twice


class ParadigmRows:
    """Rows by task: row k of a task is the same for every family.

    Args:
        settings: say whose they are.

    Raises:
        ValueError: for own rows that cannot be read, or are streamed.
    """

    def __init__(self, settings: ParadigmSettings) -> None:
        self.settings = settings
        self.own: Mapping[str, Sequence[Source]] | None = None
        if settings.data is not None:
            self.own, _ = load_training_data(settings.data)
            streamed = [one.name for found in self.own.values() for one in found if not hasattr(one.rows, "__len__")]
            if streamed:
                raise ValueError(
                    f"The rows of '{streamed[0]}' are streamed, so that a run cannot go on where it was; give them as "
                    "files (`streaming: false`)."
                )

    def ratio(self, tasks: Sequence[str]) -> dict[str, float]:
        """Shares of those tasks that a family is trained on.

        Args:
            tasks: that it can be trained on.

        Raises:
            ValueError: if there are no rows of any.
        """
        there = dict(SHARES) if self.own is None else {task: self._count(found) for task, found in self.own.items()}
        found = {task: share for task, share in there.items() if task in tasks}
        if not found:
            raise ValueError(f"There are rows of {', '.join(there)}, but none of {', '.join(tasks)}.")
        return found

    def mixture(self, ratio: Mapping[str, float], seed: int, length: int) -> TaskMixture:
        """All rows of a run in order; within a step those of a task stand together.

        Args:
            ratio: from [`~ParadigmRows.ratio`].
            seed: of rows and their order.
            length: how many.
        """
        step = self.settings.batch_size
        if self.own is not None:
            own = {task: self.own[task] for task in ratio}
            return TaskMixture(own, ratio, seed, length, sorted_within=step)
        rows: dict[str, Any] = {
            "generation": FewRows(_ENDLESS, seed),
            "editing": FewEdits(_ENDLESS, seed),
            "understanding": Conversations(_ENDLESS, _QUESTIONS, seed),
        }
        sources = {task: [Source(rows[task], task)] for task in SHARES if task in ratio}
        return TaskMixture(sources, ratio, seed, length, shuffle=False, sorted_within=step)

    def pictures(self) -> Iterator[Image.Image]:
        """Some of what is drawn, always the same, at the size that is drawn."""
        height, width = self.settings.size
        if self.own is None:
            rows: Iterator[Any] = map(FewRows(_FITTED, 0).__getitem__, range(_FITTED))
        else:
            found = self.own.get("generation") or next(iter(self.own.values()))
            rows = itertools.islice((source.rows[at] for source in found for at in range(len(source.rows))), _FITTED)
        for row in rows:
            yield ImageOps.fit(open_image(row["images"][-1]).convert("RGB"), (width, height))

    @staticmethod
    def _count(found: Sequence[Source]) -> float:
        return float(sum(len(source.rows) for source in found))


def questions_only(seed: int, length: int, step: int) -> TaskMixture:
    """Rows that the small language model learns from: questions about pictures.

    Args:
        seed: another seed gives other rows.
        length: how many.
        step: rows of each optimizer step.
    """
    source = Source(Conversations(_ENDLESS, _QUESTIONS, seed), "understanding")
    return TaskMixture({"understanding": [source]}, None, seed, length, shuffle=False, sorted_within=step)


def items_to_judge(settings: ParadigmSettings) -> dict[str, list[Item]]:
    """What every run is judged by in the end, by task.

    Args:
        settings: say how many, or whose.

    Raises:
        ValueError: if own prompts have nothing to draw.
    """
    if settings.prompts is None:
        half = max(1, settings.judged // 2)
        return {
            "generation": few_items(settings.judged, "test"),
            "understanding": scene_items("understanding", half, "test"),
            "editing": few_edit_items(half, "test"),
        }
    found = prompt_items(read_prompts(Path(settings.prompts)))
    if "generation" not in found:
        raise ValueError(f"The prompts in '{settings.prompts}' have nothing to draw; add some of the task generation.")
    return found


def items_to_look_at(settings: ParadigmSettings) -> list[Item]:
    """What a run draws while it is trained; of the scenes it is the split "validation"."""
    if settings.prompts is None:
        return few_items(settings.looked_at, "validation")
    return items_to_judge(settings)["generation"][: settings.looked_at]
