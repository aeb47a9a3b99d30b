"""Rows to train on, all of one length: answers, drawings and edits with random text and codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from wallaroo_hf import WallarooForConditionalGeneration

TASKS = ("understanding", "generation", "editing")
_SHARE_MASKED = 0.6  # of a source, as in training


@dataclass(frozen=True)
class RowShape:
    """What rows look like.

    Attributes:
        length: tokens of every row; prompts fill what images and answers leave.
        drawing, edit: rows and columns of a drawing, and of source and target of an edit.
        answer: tokens of an answer that are learned.
    """

    length: int = 1115
    drawing: tuple[int, int] = (32, 32)
    edit: tuple[int, int] = (16, 32)
    answer: int = 256


class RowMaker:
    """Makes rows for a model; the same ones for the same seed."""

    def __init__(self, model: WallarooForConditionalGeneration, shape: RowShape, seed: int = 0) -> None:
        self.config, self.shape, self.device = model.config, shape, model.device
        self.generator = torch.Generator().manual_seed(seed)

    def row(self, task: str) -> dict[str, Any]:
        """`input_ids` and `labels` `(T,)`; of an edit also its source: `source_latents`, `source_mask`."""
        config = self.config
        line = torch.tensor([config.end_of_line_token_id])
        if task == "understanding":
            learned, before, source = self._text(self.shape.answer), torch.empty(0, dtype=torch.long), None
        else:
            grid = self.shape.drawing if task == "generation" else self.shape.edit
            codes = config.text_config.vocab_size + self._random(config.codebook_size, grid[0] * grid[1])
            start, end = config.generate_start_token_id, config.generate_end_token_id
            closing = torch.tensor([end, config.text_config.eos_token_id, 0])  # <|im_end|> and a newline
            learned = torch.cat([torch.tensor([start]), _lines(codes, grid, line), closing])
            before, source = torch.empty(0, dtype=torch.long), None
            if task == "editing":
                pads = torch.full((grid[0] * grid[1],), config.image_token_id)
                block = (config.pixel_start_token_id, config.pixel_end_token_id)
                before = torch.cat([torch.tensor(block[:1]), _lines(pads, grid, line), torch.tensor(block[1:])])
                source = grid
        prompt = self._text(self.shape.length - len(before) - len(learned))
        ids = torch.cat([before, prompt, learned])
        labels = torch.cat([torch.full((len(before) + len(prompt),), -100), learned])
        row: dict[str, Any] = {"task": task, "input_ids": ids, "labels": labels}
        if source is not None:
            latents = torch.randn(*source, config.vq_config.embed_dim, generator=self.generator)
            row["source_latents"] = torch.nn.functional.normalize(latents, dim=-1)
            row["source_mask"] = torch.rand(source[0] * source[1], generator=self.generator) < _SHARE_MASKED
        return row

    def batch(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """What `WallarooForConditionalGeneration.forward` takes, on the model's device."""
        batch: dict[str, Any] = {
            name: torch.stack([row[name] for row in rows]).to(self.device) for name in ("input_ids", "labels")
        }
        batch["attention_mask"] = torch.ones_like(batch["input_ids"])
        for name in ("source_latents", "source_mask"):
            found = [row[name].to(self.device) for row in rows if name in row]
            if found:
                batch[name] = found
        return batch

    def _random(self, below: int, count: int) -> torch.Tensor:
        return torch.randint(below, (count,), generator=self.generator)

    def _text(self, count: int) -> torch.Tensor:
        return self._random(self.config.text_config.vocab_size // 2, count)  # special tokens are at the end


def _lines(tokens: torch.Tensor, grid: tuple[int, int], line: torch.Tensor) -> torch.Tensor:
    """Tokens `(rows * cols,)` with a line break between rows."""
    parts = [part for row in tokens.view(grid) for part in (row, line)]
    return torch.cat(parts[:-1])
