"""Scores of a trained variant: what each code and each end of a line cost it, and what the judge says of its pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from ...processing.processor import WallarooProcessor
from ...scenes import Prompt
from ...scenes.shapes import SLOT
from ...training.collator import WallarooDataCollator
from ...training.data.training_rows import ORDINAL
from ...training.wallaroo_kit import encode_images
from ..drawing_settings import Sampling
from ..item_outputs import Subject, evaluation_mode, make_outputs
from ..items import prompt_items
from .data import EncodedRows

__all__ = ["score_drawings", "score_edits", "score_lines", "share_right"]

_BATCH_SIZE = 32
GREEDY = Sampling({"guidance_scale": 1.0, "do_sample": False, "guidance_min_p": 0.0})


class _RowLosses(NamedTuple):
    """One row's losses in nats.

    Attributes:
        codes: `(rows, cols)`.
        lines: `(rows,)`, at the end of each line: of what follows there, a line break or the end of the image.
        lines_right: `(rows,)` bool, whether that was the likeliest of all tokens.
    """

    codes: np.ndarray
    lines: np.ndarray
    lines_right: np.ndarray


def score_edits(model: Any, processor: WallarooProcessor, validation: EncodedRows) -> dict[str, float]:
    """Mean losses of edits: all codes; first codes of objects that stay as they were; first codes of those that do not.

    The first code of an object is the upper left one of its slot: it has to say which object it will be.
    """
    codes: list[float] = []
    kept: list[float] = []
    changed: list[float] = []
    for index, losses in enumerate(_row_losses(model, processor, validation.rows)):
        row = validation.lessons.scene_row(index)
        before = {_key(thing) for thing in row["scene"]["objects"]}
        codes.append(losses.codes.mean())
        for thing in row["target_scene"]["objects"]:
            (kept if _key(thing) in before else changed).append(_first_code(losses.codes, thing, processor))
    return {
        "edit_codes": float(np.mean(codes)),
        "edit_first_kept": float(np.mean(kept)),
        "edit_first_changed": float(np.mean(changed)),
    }


def score_drawings(model: Any, processor: WallarooProcessor, validation: EncodedRows) -> dict[str, float]:
    """Mean losses of drawings: all codes, and first codes of objects."""
    codes, first = [], []
    for index, losses in enumerate(_row_losses(model, processor, validation.rows)):
        row = validation.lessons.scene_row(index)
        codes.append(losses.codes.mean())
        first += [_first_code(losses.codes, thing, processor) for thing in row["target_scene"]["objects"]]
    return {"drawing_codes": float(np.mean(codes)), "drawing_first": float(np.mean(first))}


def score_lines(model: Any, processor: WallarooProcessor, validation: EncodedRows) -> dict[str, float]:
    """What the model makes of the ends of lines, where drawing by default forces it: is there another line?

    `line_ends` is the mean loss there, `rows_right` the share of pictures in which the likeliest token is right at each: so
    many would have the right number of rows if it were free. (How wide a line is no model of this kind decides: text
    is learned at ends of lines only.)
    """
    rows = list(_row_losses(model, processor, validation.rows))
    return {
        "line_ends": float(np.mean(np.concatenate([row.lines for row in rows]))),
        "rows_right": float(np.mean([row.lines_right.all() for row in rows])),
    }


def share_right(model: Any, processor: WallarooProcessor, validation: EncodedRows, count: int) -> float:
    """The share of the first rows that the model draws right, greedily and without guidance, by the exact judge.

    Args:
        model: a `WallarooForConditionalGeneration`.
        processor: its processor.
        validation: rows with the scenes that stand behind them.
        count: how many of the rows are drawn.
    """
    prompts = [Prompt.from_dict(validation.lessons.scene_row(index)) for index in range(count)]
    (items,) = prompt_items(prompts).values()
    subject = Subject(model, processor, GREEDY, max_new_tokens=1)
    right = 0
    with evaluation_mode(model):
        for start in range(0, count, _BATCH_SIZE):
            batch = items[start : start + _BATCH_SIZE]
            right += sum(
                item.judge(output).ok for item, output in zip(batch, make_outputs(subject, batch), strict=True)
            )
    return right / count


def _key(thing: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(thing[name] for name in ("row", "col", "shape", "colour"))


def _first_code(losses: np.ndarray, thing: Mapping[str, Any], processor: WallarooProcessor) -> float:
    codes_per_slot = SLOT // processor.image_token_size
    return float(losses[codes_per_slot * thing["row"], codes_per_slot * thing["col"]])


@torch.no_grad()
def _row_losses(model: Any, processor: WallarooProcessor, rows: Any) -> Iterator[_RowLosses]:
    """The losses of each row, with the first template, the whole source and the words: as in use, not as in training."""
    collator = WallarooDataCollator(
        processor,
        unconditional_rate=0.0,
        source_mask_rate=0.0,
        random_templates=False,
        pixel_limits=processor.pixel_limits["editing"],
    )
    with evaluation_mode(model):
        for start in range(0, len(rows), _BATCH_SIZE):
            chosen = [rows[index] for index in range(start, min(start + _BATCH_SIZE, len(rows)))]
            batch = collator([{**row, ORDINAL: start + at} for at, row in enumerate(chosen)])
            batch.pop("row_names")
            yield from _split(model, batch, [np.shape(row["image_tokens"][0]) for row in chosen])


def _split(model: Any, batch: dict[str, Any], shapes: Sequence[tuple[int, int]]) -> Iterator[_RowLosses]:
    """Runs a batch of drawing rows and gives each row its losses."""
    inputs = encode_images(model.model, {name: _to_device(value, model.device) for name, value in batch.items()})
    outputs = model(**inputs)
    config = model.config
    labels = inputs["labels"][:, 1:].cpu()
    is_code, is_text = (
        labels >= config.text_config.vocab_size,
        (labels >= 0) & (labels < config.text_config.vocab_size),
    )
    codes = labels[is_code] - config.text_config.vocab_size
    code_losses = F.cross_entropy(outputs.image_logits.float().cpu(), codes, reduction="none")
    texts, logits = labels[is_text], outputs.logits.float().cpu()
    text_losses = F.cross_entropy(logits, texts, reduction="none")
    right = logits.argmax(dim=-1) == texts
    ends_line = (texts == config.end_of_line_token_id) | (texts == config.generate_end_token_id)
    code_parts = code_losses.split(is_code.sum(dim=1).tolist())
    counts = is_text.sum(dim=1).tolist()
    parts = zip(code_parts, text_losses.split(counts), right.split(counts), ends_line.split(counts), strict=True)
    for shape, (code_part, text_part, right_part, ends) in zip(shapes, parts, strict=True):
        yield _RowLosses(code_part.reshape(tuple(shape)).numpy(), text_part[ends].numpy(), right_part[ends].numpy())


def _to_device(value: Any, device: torch.device) -> Any:
    if isinstance(value, list):
        return [_to_device(item, device) for item in value]
    return value.to(device) if isinstance(value, torch.Tensor) else value
