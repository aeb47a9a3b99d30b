"""A workshop per test: the compact model's released files, ways to spoil them, and a look at what is left behind."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from golden import GoldenSet
from wallaroo_hf.conversion.converter import convert_checkpoint, convert_vq
from wallaroo_hf.layout.special_tokens import added_tokens

EDITING = ("pixel_adapter.", "edit_input_adpater.", "edit_image_head.")


class Workshop:
    """The inputs of a conversion, each of which a test may replace, and the conversion itself."""

    def __init__(self, compact: GoldenSet, folder: Path) -> None:
        self.folder = folder
        self.checkpoint: Any = compact.checkpoint
        self.vq: Any = compact.vq
        self.base: Any = compact.base
        self.output = folder / "results" / "output"
        self.output.parent.mkdir()

    def weights(self) -> dict[str, torch.Tensor]:
        """The released checkpoint's tensors, a dictionary of one's own."""
        return dict(torch.load(self.checkpoint, weights_only=True)["state_dict"])

    def vq_weights(self) -> dict[str, torch.Tensor]:
        """The image tokenizer's tensors, a dictionary of one's own."""
        return dict(torch.load(self.vq, weights_only=True)["model"])

    def save_checkpoint(self, weights: dict[str, Any]) -> None:
        """Makes these the checkpoint to convert."""
        self.checkpoint = self.folder / "changed.ckpt"
        torch.save({"state_dict": weights}, self.checkpoint)

    def save_vq(self, weights: dict[str, Any]) -> None:
        """Makes these the image tokenizer to convert."""
        self.vq = self.folder / "changed.pt"
        torch.save({"model": weights}, self.vq)

    def drop_editing(self) -> None:
        """Makes the checkpoint one of stages 1 to 3."""
        self.save_checkpoint({key: value for key, value in self.weights().items() if not key.startswith(EDITING)})

    def own_base(self) -> Path:
        """Replaces the base folder by a copy that the test may change."""
        self.base = Path(shutil.copytree(self.base, self.folder / "base"))
        return self.base

    def change_json(self, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
        """Changes a json file of the base."""
        path = (self.base if self.base == self.folder / "base" else self.own_base()) / name
        content = json.loads(path.read_text(encoding="utf-8"))
        change(content)
        path.write_text(json.dumps(content), encoding="utf-8")

    def strip_tokens(self, tokens: list[str] | None = None) -> int:
        """Takes Wallaroo's tokens out of the base tokenizer, as in published Qwen2.5-VL; returns the first free id."""
        tokens = added_tokens() if tokens is None else tokens

        def strip(tokenizer: dict[str, Any]) -> None:
            kept = [entry for entry in tokenizer["added_tokens"] if entry["content"] not in tokens]
            tokenizer["added_tokens"] = kept

        def strip_config(config: dict[str, Any]) -> None:
            decoder = config["added_tokens_decoder"]
            config["added_tokens_decoder"] = {k: v for k, v in decoder.items() if v["content"] not in tokens}

        self.change_json("tokenizer.json", strip)
        self.change_json("tokenizer_config.json", strip_config)
        left = json.loads((self.base / "tokenizer.json").read_text(encoding="utf-8"))
        return 1 + max([entry["id"] for entry in left["added_tokens"]] + list(left["model"]["vocab"].values()))

    def convert(self, **kwargs: Any) -> Path:
        """Converts; to float32 unless told otherwise."""
        return convert_checkpoint(self.checkpoint, self.vq, self.base, self.output, **{"dtype": "float32"} | kwargs)

    def refused(self, run: Callable[[], Any] | None = None, **kwargs: Any) -> str:
        """Converts (or runs something else) in vain: one sentence, and nothing is left. Returns the sentence."""
        before = self.left_behind()
        with pytest.raises(ValueError) as caught:
            run() if run is not None else self.convert(**kwargs)
        message = str(caught.value)
        assert type(caught.value) is ValueError
        assert "\n" not in message and message.endswith((".", "?")) and 40 < len(message) < 700
        assert self.left_behind() == before
        return message

    def refused_vq(self) -> str:
        """As `refused`, converting the image tokenizer alone."""
        return self.refused(lambda: convert_vq(self.vq, self.output))

    def left_behind(self) -> list[tuple[str, list[str]]]:
        """Everything where the output goes, hidden files too."""
        return [(folder, sorted(folders + files)) for folder, folders, files in os.walk(self.output.parent)]


@pytest.fixture
def workshop(compact: GoldenSet, tmp_path: Path) -> Workshop:
    """The compact model's released files and a place to convert them to."""
    return Workshop(compact, tmp_path)
