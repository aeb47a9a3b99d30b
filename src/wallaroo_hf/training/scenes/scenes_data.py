"""Rows of the scenes for training: words and pictures as they are needed, codes from what was encoded ahead."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...scenes import SceneDataset
from ...scenes.chats import make_chat
from ...scenes.conversations import make_conversation
from ...scenes.lessons import (
    make_chat_lesson,
    make_destination_lesson,
    make_edit_lesson,
    make_hard_edit_lesson,
    make_large_edit_lesson,
    make_large_lesson,
    make_lesson,
    make_place_lesson,
    make_position_lesson,
    make_selection_lesson,
    make_two_step_lesson,
)
from ...scenes.tasks import render_row
from ..data.mixing import Source, TaskMixture
from ..data.training_rows import Row
from ..datasets import load_rows
from ..stages import Stage

# Encoded rows that are lessons or chats, by the name of their folder; other folders are called after their task.
LESSONS = {
    "lessons": make_lesson,
    "large_lessons": make_large_lesson,
    "position_lessons": make_position_lesson,
    "place_lessons": make_place_lesson,
    "edit_lessons": make_edit_lesson,
    "large_edit_lessons": make_large_edit_lesson,
    "selection_lessons": make_selection_lesson,
    "hard_edit_lessons": make_hard_edit_lesson,
    "two_step_lessons": make_two_step_lesson,
    "destination_lessons": make_destination_lesson,
    "chats": make_chat,
    "chat_lessons": make_chat_lesson,
}

__all__ = ["LESSONS", "SceneRows", "mixture", "text_corpus"]


class SceneRows(Sequence[Row]):
    """The scenes' rows of one task, in the form of training rows, with pictures.

    Args:
        task: one of the scenes' tasks.
        num_rows: how many.
        seed: another seed gives other rows.
        split: "train", "validation" or "test".
    """

    def __init__(self, task: str, num_rows: int, seed: int = 0, split: str = "train") -> None:
        self.rows = SceneDataset(split, num_rows, seed, [task])
        self.task = task

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        row = self.rows[index]
        training = {"messages": row["messages"], "images": row["images"], "name": f"{self.task}[{index}]"}
        if self.task == "interleaved":
            training["task"] = "interleaved"
            target = row["target_scene"]
            training |= {"height": target["height"], "width": target["width"]}  # auto mode announces every size
        return training


class Lessons(Sequence[Row]):
    """Pictures to draw or to edit as of `scenes.lessons`, and chats as of `scenes.chats`, in the form of training rows.

    Args:
        name: which, one of `LESSONS`.
        num_rows: how many.
        seed: another seed gives other rows.
    """

    def __init__(self, name: str, num_rows: int, seed: int = 0) -> None:
        self.make, self.num_rows, self.seed = LESSONS[name], num_rows, seed

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        row = render_row(self.make(self.seed, range(self.num_rows)[index]))
        size = row["target_scene"] or row  # a chat has a size also where it only answers: auto mode announces one
        return {
            **{key: row[key] for key in ("messages", "images")},
            "height": size["height"],
            "width": size["width"],
            "name": f"lesson[{index}]",
            **({"task": "interleaved"} if row["task"] == "chat" else {}),
        }


class Conversations(Sequence[Row]):
    """Rows of several questions about one picture each, in the form of training rows.

    A row of one question has five or so tokens to learn from among forty; the picture and the turns around it cost the same
    for one question as for four.

    Args:
        num_rows: how many.
        num_questions: in each row, at most.
        seed: another seed gives other rows.
        weights: how often each category is asked, see [`make_conversation`].
    """

    def __init__(
        self, num_rows: int, num_questions: int, seed: int = 0, weights: Mapping[str, float] | None = None
    ) -> None:
        self.num_rows, self.num_questions, self.seed, self.weights = num_rows, num_questions, seed, weights

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        index = range(self.num_rows)[index]
        row = render_row(make_conversation(self.seed, index, self.num_questions, weights=self.weights))
        return {"messages": row["messages"], "images": row["images"], "name": f"conversation[{index}]"}


def text_corpus(num_rows: int, seed: int, templates: Mapping[str, Mapping[str, Sequence[str]]]) -> list[str]:
    """What the tokenizer of the small model learns from: all that is said in rows, templates, and how turns begin."""
    texts = [
        part["text"]
        for row in SceneDataset("train", num_rows, seed, images=False)
        for message in row["messages"]
        for part in message["content"]
        if part["type"] == "text"
    ]
    written = [
        text.format(prompt="") for by_language in templates.values() for own in by_language.values() for text in own
    ]
    turns = ["system\nYou are a helpful assistant.", "user\n", "assistant\n"]
    often = max(num_rows // 20, 1)
    texts += (written + turns) * often
    random.Random(seed).shuffle(texts)
    return texts


def mixture(
    stage: Stage,
    encoded: Path,
    seed: int,
    questions: int,
    weights: Mapping[str, float] | None = None,
    folders: Mapping[str, Mapping[str, float]] | None = None,
) -> TaskMixture:
    """All rows of a stage in training order; within an optimizer step rows of a task stand together.

    Understanding rows are made as they are needed, so none comes twice. The others are read from `encoded`, which holds
    one folder per task (see [`wallaroo_hf.training.data.encoding.encode_rows`]); stages without line breaks take the square
    ones.

    Args:
        stage: decides tasks, their ratio, and how many rows.
        encoded: the folder.
        seed: of the order, and of understanding rows.
        questions: in an understanding row, at most.
        weights: how often each kind of question is asked.
        folders: task -> folder of encoded rows -> its share of the task's rows; a task that is not named reads the folder
            of its own name.
    """
    length = stage.max_steps * stage.global_batch_size
    sources: dict[str, list[Source]] = {}
    for task, share in stage.task_ratio.items():
        if not share:
            continue
        if task == "understanding":
            sources[task] = [Source(Conversations(length, questions, seed, weights), task)]
            continue
        shares = (folders or {}).get(task, {task: 1.0})
        sources[task] = [
            Source(_encoded_rows(encoded / folder, stage.named_layout().line_breaks), folder, weight)
            for folder, weight in shares.items()
        ]
    return TaskMixture(sources, stage.task_ratio, seed, length, sorted_within=stage.global_batch_size)


def _encoded_rows(folder: Path, all_sizes: bool) -> Any:
    rows = load_rows(folder)
    if all_sizes:
        return rows
    return rows.select([index for index, codes in enumerate(rows["image_tokens"]) if _is_square(codes[0])])


def _is_square(codes: Sequence[Sequence[int]]) -> bool:
    return len(codes) == len(codes[0])
