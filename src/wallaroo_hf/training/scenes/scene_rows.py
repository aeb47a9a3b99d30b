"""Rows of the scenes in the form of training rows, of whatever family: words and pictures as they are needed."""

from collections.abc import Mapping, Sequence

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
from ..data.training_rows import Row

# Lessons and chats by name, which is that of their folder where they are encoded ahead.
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

__all__ = ["LESSONS", "Conversations", "Lessons", "SceneRows"]


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
