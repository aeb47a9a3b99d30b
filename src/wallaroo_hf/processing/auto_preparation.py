"""Preparation of chats that may answer and draw in one turn: prompts for auto mode, and rows to train it."""

import dataclasses
from typing import Any

import numpy as np
from PIL import Image

from ..layout import grid, prompt_texts
from ..layout.special_tokens import (
    GENERATE_END,
    GENERATE_IMAGE_PAD,
    GENERATE_START,
    IMAGE_PAD,
    PIXEL_END,
    PIXEL_START,
    VISION_END,
    VISION_START,
)
from .batch import WallarooBatchFeature
from .drawing_requests import AutoRow, open_target, pick_size, read_auto_rows
from .refused_words import refused_tokens
from .row_preparation import PreparationMixin
from .token_rows import TokenRow, expand_vision, pad, tokenize


class AutoPreparationMixin(PreparationMixin):
    """What [`WallarooProcessor`] does with `generation_mode="auto"`."""

    def _prepare_auto(
        self,
        texts: list[str],
        images: Any,
        size_options: dict[str, Any],
        negative_prompt: Any,
        merged: dict[str, dict[str, Any]],
    ) -> WallarooBatchFeature:
        """Chats whose images can be understood and edited, and a null prompt for each row, in case it draws."""
        refused = refused_tokens(self.tokenizer)
        rows = read_auto_rows(texts, images, size_options, negative_prompt, self.buckets, refused, self.has_editing)
        written, pixels = self._auto_rows(rows, merged)
        conditional = tokenize(self.tokenizer, written, merged["text_kwargs"], None)
        nulls = [row.null if self.has_editing else dataclasses.replace(row.null, source=None) for row in rows]
        grids = None
        if (
            "image_grid_thw" in pixels and self.has_editing
        ):  # that of each row's last image, which a drawing would edit
            last = np.cumsum([len(row.images) for row in rows]) - 1
            grids = pixels["image_grid_thw"][[index for index, row in zip(last, rows) if row.images]]
        null_rows, null_pixels = self._branch(nulls, 0, "trained", merged, False, grids)
        data = pad(self.tokenizer, conditional, merged["text_kwargs"]) | pixels
        null = pad(self.tokenizer, null_rows, merged["text_kwargs"]) | null_pixels
        data |= {f"negative_{key}": value for key, value in null.items()}
        data["target_grid_hw"] = self._grids([row.size for row in rows])
        return self._batch(data, merged)

    def _prepare_interleaved(
        self,
        texts: list[str],
        images: Any,
        target_images: Any,
        size_options: dict[str, Any],
        merged: dict[str, dict[str, Any]],
        return_labels: bool,
    ) -> WallarooBatchFeature:
        """Training rows: chats in which the assistant's images are to be learned, between its words.

        A row's images to learn share one size: the one asked for, else that of its codes, else the one that a prompt has
        in auto mode.
        """
        targets = _targets_per_row(texts, target_images)
        opened = [[open_target(target, self.image_token_size) for target in row] for row in targets]
        marked = [_mark_targets(text, len(row)) for text, row in zip(texts, opened, strict=True)]
        rows = read_auto_rows(marked, images, size_options, None, self.buckets, (), self.has_editing)
        for index, (row, own) in enumerate(zip(rows, opened, strict=True)):
            encoded = _common_size(own)
            if encoded is not None:
                height, width = row.size if row.size_was_asked_for else (None, None)
                rows[index] = dataclasses.replace(
                    row, size=pick_size(self.buckets, height, width, None, None, encoded)
                )
        written, pixels = self._auto_rows(rows, merged)
        # one placeholder stands where an image is to be learned; chats hold no other, which was checked
        written = [
            text.replace(GENERATE_IMAGE_PAD, self._rows(GENERATE_IMAGE_PAD, row.size))
            for text, row in zip(written, rows, strict=True)
        ]
        spans = prompt_texts.learned_spans if return_labels else None
        tokens: list[TokenRow] = tokenize(self.tokenizer, written, merged["text_kwargs"], spans)
        pixels |= self._targets([(target, row.size) for row, own in zip(rows, opened) for target, _ in own])
        data = pad(self.tokenizer, tokens, merged["text_kwargs"]) | pixels
        data["target_grid_hw"] = self._grids([row.size for row in rows])
        return self._batch(data, merged)

    def _auto_rows(self, rows: list[AutoRow], merged: dict[str, dict[str, Any]]) -> tuple[list[str], dict[str, Any]]:
        """Chats written out with their size announced and with their source and vision blocks, and the pixels of both."""
        for row in rows:
            grid.check_size(*row.size, self.image_token_size, plain_grid=not self.line_breaks)
        flat = [(image, row.size) for row in rows for image in row.images]
        limits = self.pixel_limits.get("editing")
        pixels, lengths = self._navit([image for image, _ in flat], limits, merged["images_kwargs"])
        queue = iter(lengths)
        written = []
        for row in rows:
            announced = prompt_texts.announce_size(row.text, self._indicators(*row.size))
            text = expand_vision(announced, [next(queue) for _ in row.images])
            if self.has_editing:  # now that its placeholders are not counted any more
                source = f"{PIXEL_START}{self._rows(IMAGE_PAD, row.size)}{PIXEL_END}"
                text = text.replace(VISION_START, f"{source}{VISION_START}")
            written.append(text)
        if flat and self.has_editing:
            pixels["source_pixel_values"] = [self.image_processor.to_vq_pixels(image, *size) for image, size in flat]
        return written, pixels


def _targets_per_row(texts: list[str], target_images: Any) -> list[list[Any]]:
    """The images to learn of each row: nested lists, one list per row."""
    rows = target_images if isinstance(target_images, (list, tuple)) else []
    if len(rows) != len(texts) or not all(isinstance(row, (list, tuple)) for row in rows):
        raise ValueError(
            f"`target_images` must be a list with one list of images per chat (here {len(texts)}) where chats are "
            "trained; an empty list for a chat that draws nothing."
        )
    return [list(row) for row in rows]


def _common_size(targets: list[tuple[Image.Image | np.ndarray, tuple[int, int] | None]]) -> tuple[int, int] | None:
    sizes = {size for _, size in targets if size is not None}
    if len(sizes) > 1:
        raise ValueError(
            f"A chat draws images of different sizes {sorted(sizes)}, but a row has one; encode them alike."
        )
    return next(iter(sizes), None)


def _mark_targets(text: str, expected: int) -> str:
    """Replaces the vision blocks in what the assistant says by spans of an image to learn, of one placeholder each.

    Raises:
        ValueError: if there are more or fewer of them than images.
    """
    block = f"{VISION_START}{IMAGE_PAD}{VISION_END}"
    pieces, end, found = [], 0, 0
    for start, stop in prompt_texts.answer_spans(text):
        answer = text[start:stop]
        found += answer.count(block)
        pieces += [text[end:start], answer.replace(block, f"{GENERATE_START}{GENERATE_IMAGE_PAD}{GENERATE_END}")]
        end = stop
    if found != expected:
        raise ValueError(
            f"The assistant shows {found} images in a chat, but `target_images` has {expected} for it; they must match."
        )
    return "".join([*pieces, text[end:]])
