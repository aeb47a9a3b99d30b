"""Small pictures of one or two objects with English captions: rows to learn from, and items to be judged by."""

from __future__ import annotations

from collections.abc import Sequence

from ...scenes import Prompt
from ...scenes.captions import CAPTION_CATEGORIES
from ...scenes.few_objects import make_few_edit, make_few_row
from ...scenes.splits import OPERATIONS
from ...scenes.tasks import render_row
from ...training.data.training_rows import Row
from ..items import Item, prompt_items

__all__ = ["LANGUAGE", "FewEdits", "FewRows", "few_edit_items", "few_items"]

LANGUAGE = "en"  # one of two: half the words to learn
_ITEMS_SEED = 1 << 32  # no training seed


class FewRows(Sequence[Row]):
    """Rows of the split "train" in the form of training rows, with pictures.

    Args:
        num_rows: how many.
        seed: another seed gives other rows.
    """

    def __init__(self, num_rows: int, seed: int) -> None:
        self.num_rows, self.seed = num_rows, seed

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        return _training_row(make_few_row(self.seed, range(self.num_rows)[index], "train", language=LANGUAGE), index)


class FewEdits(Sequence[Row]):
    """Edits of such pictures, of the split "train", in the form of training rows, with pictures.

    Args:
        num_rows: how many.
        seed: another seed gives other rows.
    """

    def __init__(self, num_rows: int, seed: int) -> None:
        self.num_rows, self.seed = num_rows, seed

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        return _training_row(make_few_edit(self.seed, range(self.num_rows)[index], "train", language=LANGUAGE), index)


def _training_row(made: Row, index: int) -> Row:
    row = render_row(made)
    size = row["target_scene"]
    return {
        **{key: row[key] for key in ("messages", "images")},
        **{"height": size["height"], "width": size["width"], "name": f"few[{index}]"},
    }


def few_items(num_items: int, split: str) -> list[Item]:
    """Items to draw; GenEval's six categories come in turn.

    Args:
        num_items: how many.
        split: "test" and "validation" combine shapes, colours and relations as training never does; items of "train" are
            other pictures than those to learn from, of the same combinations.
    """
    categories = [CAPTION_CATEGORIES[index % len(CAPTION_CATEGORIES)] for index in range(num_items)]
    rows = [make_few_row(_ITEMS_SEED, index, split, one, LANGUAGE) for index, one in enumerate(categories)]
    return prompt_items([Prompt.from_dict(row) for row in rows])["generation"]


def few_edit_items(num_items: int, split: str) -> list[Item]:
    """Items to edit; the operations come in turn.

    Args:
        num_items: how many.
        split: see [`few_items`].
    """
    operations = [OPERATIONS[index % len(OPERATIONS)] for index in range(num_items)]
    rows = [make_few_edit(_ITEMS_SEED, index, split, one, LANGUAGE) for index, one in enumerate(operations)]
    return prompt_items([Prompt.from_dict(row) for row in rows])["editing"]
