"""What a run of the built-in checkpoint trains on: rows that were encoded ahead, and questions made as they are needed."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...scenes import SceneDataset
from ..data.mixing import Source, TaskMixture
from ..datasets import load_rows
from ..stages import Stage
from .scene_rows import LESSONS, Conversations, Lessons, SceneRows

__all__ = ["LESSONS", "Conversations", "Lessons", "SceneRows", "mixture", "text_corpus"]


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
