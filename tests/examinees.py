"""Stand-ins for a model: one that knows the rows and gets everything right, and how to spoil it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wallaroo_hf.evaluation import items as items_module
from wallaroo_hf.evaluation import scenes
from wallaroo_hf.evaluation.items import Item, Output
from wallaroo_hf.scenes import Scene, render, render_row


class Examinee:
    """Takes the place of `make_outputs`. Knows the right output of every item that has been made since it was built.

    Attributes:
        asked: the names of the items of each batch.
        rows: the rows that items were made of.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[list[str]] = []
        self.rows: dict[tuple[str, ...], dict[str, Any]] = {}
        self.spoil: Callable[[Item, Any], Any] = lambda item, output: output
        make_row = items_module.make_row

        def recorded(*args: Any, **kwargs: Any) -> dict[str, Any]:
            row = make_row(*args, **kwargs)
            size = row["scene"] or row["target_scene"]
            self.rows[row["task"], row["prompt"], str(row["scene"]), str(size["height"])] = row
            return row

        monkeypatch.setattr(items_module, "make_row", recorded)
        monkeypatch.setattr(scenes, "make_outputs", self)

    def row(self, item: Item) -> dict[str, Any]:
        """The row of an item."""
        if item.chat is not None:
            return item.chat
        assert item.prompt is not None
        shown = None if item.scene is None else item.scene.to_dict()
        return self.rows[item.task, item.prompt.prompt, str(shown), str(item.height)]

    def right(self, item: Item) -> Output:
        """The right output."""
        if item.task == "reconstruction":
            assert item.scene is not None
            return render(item.scene)
        row = self.row(item)
        if item.task == "chat":
            drawn = iter(render_row(row)["images"][len(row["shown"]) :])
            return [
                next(drawn) if part["type"] == "image" else part["text"] for part in row["messages"][-1]["content"]
            ]
        if item.task == "understanding":
            return row["messages"][-1]["content"][0]["text"]
        return render(Scene.from_dict(row["target_scene"]))

    def __call__(self, subject: Any, batch: Sequence[Item]) -> list[Any]:
        self.asked.append([item.name for item in batch])
        assert len({item.task for item in batch}) == 1 and not subject.model.training
        return [self.spoil(item, self.right(item)) for item in batch]


def blank(item: Item) -> Output:
    """The laziest output: an empty picture, or an empty answer."""
    if item.task == "chat":
        return []
    if item.task == "understanding":
        return ""
    return Image.fromarray(np.full((item.height, item.width, 3), 250, np.uint8))
