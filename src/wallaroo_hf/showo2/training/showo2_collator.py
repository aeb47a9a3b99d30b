"""Rows to batches: the layouts of the released code, pictures as pixels or encoded ahead, and how noisy each is made."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ...common.padded_rows import pad_rows
from ...common.special_words import refuse_special_tokens
from ...training.data.row_parts import RowParts, only_draws
from ...training.data.training_rows import INTERLEAVED, RowError
from ...training.row_collator import RowCollator
from ..flow_noise import CLEAN, draw_time
from ..sequences import (
    FLAG,
    IGNORED,
    Row,
    caption_row,
    chat_pre_training_row,
    drawing_row,
    image_block,
    interleaved_row,
)
from ..showo2_tokens import SequenceIds
from .chat_rows import chat_row
from .row_pictures import RowPictures
from .showo2_stages import ShowO2Stage

__all__ = ["ShowO2DataCollator"]

_MOST_SEEDS = 2**62


class ShowO2DataCollator(RowCollator):
    """Turns rows (docs/data.md) into a batch for Show-o2, whose images [`ShowO2Kit.prepare`] makes noisy.

    A row whose last answer is one image draws it, behind its words, some without them; a row in which the assistant speaks
    and draws is interleaved; all others are understood, in the layout of the stage. What the user shows is context.

    All random choices of a row, its images' times and the seeds of their noise among them, follow from `seed` and the row's
    `ordinal`: see [`RowCollator`].

    Args:
        processor: the checkpoint's.
        stage: whose settings count: see [`ShowO2Stage`].
        max_length: longest row in tokens; None = no limit.
        on_error: `"raise"` or `"skip"`.
        seed: of the random choices.
    """

    def __init__(
        self,
        processor: Any,
        stage: ShowO2Stage,
        *,
        max_length: int | None = None,
        on_error: str = "raise",
        seed: int = 0,
    ) -> None:
        super().__init__(processor, max_length=max_length, on_error=on_error, seed=seed)
        self.stage = stage
        self.ids = SequenceIds.of_tokenizer(processor.tokenizer)
        self.pictures = RowPictures(processor)

    # ------------------------------------------------------------------------------------------------------- one row

    def _lay_out(self, row: Mapping[str, Any], parts: RowParts, rng: np.random.Generator | None) -> dict[str, Any]:
        sizes = self.pictures.sizes(row, parts)
        tokens = [self.pictures.tokens(size) for size in sizes]
        laid = self._sequence(row, parts, tokens, rng)
        if rng is None or not sizes:
            return {"input_ids": laid.input_ids, "labels": laid.labels}
        drawn = [role == "assistant" for role in parts.roles]
        learned = self._learned(drawn, rng) if self.stage.teacher is None else [True] * len(drawn)
        pixels, posteriors = self.pictures.read(parts, sizes)
        if self.stage.teacher is not None and any(one is None for one in pixels):
            raise RowError("Its pictures were encoded ahead, but a teacher sees pixels; give the rows as they were.")
        return {
            "input_ids": laid.input_ids,
            "labels": laid.labels,
            "image_pixels": pixels,
            "image_posteriors": posteriors,
            "image_learned": learned,
            "timesteps": [
                self._time(is_learned, count, rng) for is_learned, count in zip(learned, tokens, strict=True)
            ],
            "noise_seeds": [int(rng.integers(_MOST_SEEDS)) for _ in sizes],
        }

    def _sequence(
        self, row: Mapping[str, Any], parts: RowParts, tokens: list[int], rng: np.random.Generator | None
    ) -> Row:
        if self.stage.teacher is not None:  # of which only the pictures count
            blocks = [token for count in tokens for token in image_block(count, self.ids)]
            return Row([self.ids.bos_token_id, *blocks], [IGNORED] * (1 + len(blocks)))
        if row.get("task") == INTERLEAVED or (parts.drawn and not only_draws(parts)):
            return self._interleaved(parts, tokens)
        if not parts.drawn:
            return self._understood(parts, tokens)
        if len(parts.messages) > 2:  # with what was said before
            return self._chat(parts, tokens)
        prompt = self._text(parts.messages[0]["content"])
        if rng is not None and rng.random() < self.stage.caption_dropout:
            prompt = ""
        if parts.shown:
            return self._edit(prompt, tokens)
        return drawing_row(self._ids(prompt), tokens[0], self.ids)

    def _understood(self, parts: RowParts, tokens: list[int]) -> Row:
        """One picture, then questions and answers, in the layout of the stage; all else is a chat."""
        turns = [message for message in parts.messages if message["role"] != "system"]
        asked = [self._text(message["content"]) for message in turns[::2]]
        answers = [self._text(message["content"]) for message in turns[1::2]]
        layout = self.stage.understanding
        opens = bool(turns) and any(part["type"] == "image" for part in turns[0]["content"])
        paired = [message["role"] for message in turns] == ["user", "assistant"] * len(answers)
        if layout == "chat" or len(tokens) != 1 or not opens or not paired:
            return self._chat(parts, tokens)
        if layout == "caption":
            if len(answers) > 1:
                return self._chat(parts, tokens)
            return caption_row(self._ids(answers[0]), tokens[0], self.ids)
        if layout == "image":
            asked = [""] * len(asked)
        asked[0] = f"\n{asked[0]}" if asked[0] else ""  # behind the picture, as in the training data
        questions = [self._ids(question) for question in asked]
        questions[0] = [self.ids.image_placeholder_token_id, *questions[0]]
        pairs = list(zip(questions, map(self._ids, answers), strict=True))
        return chat_pre_training_row(pairs, tokens, self.ids)

    def _edit(self, prompt: str, tokens: list[int]) -> Row:
        """The source, what is asked, and what is drawn: as one that is drawn behind a finished image."""
        source, target = (image_block(count, self.ids) for count in tokens)
        row = [self.ids.bos_token_id, *source, *self._ids(prompt), *target, self.ids.eos_token_id]
        return Row(row, [IGNORED] * len(row))

    def _interleaved(self, parts: RowParts, tokens: list[int]) -> Row:
        if self.stage.interleaved == "chat":
            return self._chat(parts, tokens)
        counts = iter(tokens)
        pieces: list[Any] = []
        for part in [part for message in parts.messages for part in message["content"]]:
            if part["type"] == "image":
                pieces.append(next(counts))
            else:
                text = self._checked(part["text"]).strip()
                pieces.append(self._ids(text if pieces else f" {text}"))  # the first follows the flag
        return interleaved_row(self._ids(FLAG), pieces, self.ids)

    def _chat(self, parts: RowParts, tokens: list[int]) -> Row:
        rendered = self.processor.apply_chat_template(parts.messages, tokenize=False)
        return chat_row(rendered, tokens, self.processor.tokenizer, self.ids)

    def _text(self, content: Sequence[Mapping[str, Any]]) -> str:
        return self._checked("".join(part["text"] for part in content if part["type"] == "text").strip())

    def _checked(self, text: str) -> str:
        refuse_special_tokens("row", text, self.processor.special_words)
        return text

    def _ids(self, text: str) -> list[int]:
        return list(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    # -------------------------------------------------------------------------------------------------------- choices

    def _learned(self, drawn: list[bool], rng: np.random.Generator) -> list[bool]:
        """Which images are noisy: those that are drawn, but of several, sometimes, the first stay clean."""
        places = [place for place, is_drawn in enumerate(drawn) if is_drawn]
        clean: list[int] = []
        if len(places) > 1 and rng.random() < self.stage.clean_rate:
            clean = places[: int(rng.integers(1, len(places)))]
        return [is_drawn and place not in clean for place, is_drawn in enumerate(drawn)]

    def _time(self, is_learned: bool, tokens: int, rng: np.random.Generator) -> float:
        if self.stage.teacher is not None:
            is_learned = bool(rng.random() < self.stage.noise_rate)
        return draw_time(rng, tokens + 1) if is_learned else CLEAN

    # ------------------------------------------------------------------------------------------------------ the batch

    def _batch(self, encoded: list[dict[str, Any]]) -> dict[str, Any]:
        rows = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in encoded]
        options = {"padding": True, "padding_side": "right"}
        padded = pad_rows(self.ids.pad_token_id, rows, options)
        batch: dict[str, Any] = {name: torch.from_numpy(array) for name, array in padded.items()}
        for name in ("image_pixels", "image_posteriors", "image_learned", "timesteps", "noise_seeds"):
            items = [item for row in encoded for item in row.get(name, ())]
            if items:
                batch[name] = items
        return batch
