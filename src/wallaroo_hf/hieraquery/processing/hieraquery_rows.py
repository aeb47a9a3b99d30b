"""The steps from chats, prompts and pictures to rows of tensors; [`HieraQueryProcessor`] inherits them."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ...common.chat_form import (
    IM_START,
    IMAGE_BLOCK,
    IMAGE_PAD,
    VIDEO_PAD,
    expand_rows,
    require_placeholders,
    split_chat,
)
from ...common.navit_images import navit_patches
from ...common.navit_videos import VideoSettings, navit_videos
from ...common.padded_rows import TokenRow, pad_rows, refuse_cut_images, tokenizer_options
from ...common.row_values import as_rows, images_per_row
from ...families.abilities import EDITING, GENERATION
from ...pictures.masks import fitted_cells, open_row_mask
from ...pictures.opening import flatten_images
from ...pictures.videos import flatten_videos
from ..hieraquery_abilities import HieraQueryAbilities
from .hieraquery_batch import HieraQueryBatchFeature
from .hieraquery_image_processor import HieraQueryImageProcessor


@dataclasses.dataclass(frozen=True)
class SizeWishes:
    """What is asked of the pictures that rows become: each one value for all rows, or a list of one per row."""

    height: Any
    width: Any
    aspect_ratio: Any


class HieraQueryRowsMixin:
    """Needs the settings of [`HieraQueryProcessor`]; what they mean is said there."""

    tokenizer: Any
    image_processor: HieraQueryImageProcessor
    apply_chat_template: Any  # of the processor
    special_words: Any
    drawing_sizes: list[tuple[int, int]]
    tasks: list[str]
    size_multiple: int
    max_positions: int
    query_positions: int
    longest_edge: int | None
    languages: list[str]

    @property
    def abilities(self) -> HieraQueryAbilities:
        """What sizes, prompts and tasks are checked by; its settings are those of a loaded checkpoint, not here."""
        return HieraQueryAbilities(
            family="HieraQuery",
            tasks=tuple(self.tasks),
            sizes=tuple((int(height), int(width)) for height, width in self.drawing_sizes),
            size_multiple=self.size_multiple,
            any_size=True,
            max_positions=self.max_positions,
            languages=tuple(self.languages),
            settings=(),
            negative_prompt=False,
            interleaves=False,
            special_tokens=self.special_words,
            query_positions=self.query_positions,
            longest_edge=self.longest_edge,
        )

    def _answer(
        self, texts: list[str], images: Any, videos: Any, merged: dict[str, dict[str, Any]]
    ) -> HieraQueryBatchFeature:
        """Rows whose text goes on, as Qwen2.5-VL's own processor makes them."""
        flat, clips = flatten_images(images), flatten_videos(videos)
        require_placeholders(texts, IMAGE_PAD, len(flat), "image")
        require_placeholders(texts, VIDEO_PAD, len(clips), "video")
        if not clips:
            return self._batch(self._rows(texts, flat, merged), merged)
        video_id = self.tokenizer.convert_tokens_to_ids(VIDEO_PAD)
        if video_id in (None, self.tokenizer.unk_token_id):
            raise ValueError(
                f"The tokenizer lacks {VIDEO_PAD}, so no video can be shown; give that of a Qwen2.5-VL model."
            )
        settings = VideoSettings.read(merged["videos_kwargs"], None)
        seen, lengths = navit_videos(self.image_processor, clips, settings)
        return self._batch(self._rows(expand_rows(texts, lengths, VIDEO_PAD), flat, merged) | seen, merged)

    def _draw(
        self,
        texts: list[str],
        images: Any,
        masks: Any,
        wishes: SizeWishes,
        source_fit: str,
        merged: dict[str, dict[str, Any]],
    ) -> HieraQueryBatchFeature:
        """Rows behind which the queries of a picture stand: the user's turn, and how the assistant's begins."""
        self.abilities.check_task(GENERATION)
        if merged["text_kwargs"].get("truncation"):
            raise ValueError("`truncation` would cut what a picture is drawn from; shorten the prompt instead.")
        if merged["text_kwargs"].get("padding_side", "left") != "left":
            raise ValueError("Rows to draw from are continued at their end, so `padding_side` must be 'left'.")
        sources = images_per_row(images, texts)
        if any(source is not None for source in sources):
            self.abilities.check_task(EDITING)
        sizes = self._sizes(wishes, sources)
        shown = [
            self.image_processor.fit_to_size(source, *size, source_fit)
            for source, size in zip(sources, sizes, strict=True)
            if source is not None
        ]
        chats = [self.prompt_to_draw(text, source is not None) for text, source in zip(texts, sources, strict=True)]
        data = self._rows(chats, shown, merged)
        longest = int(data["attention_mask"].sum(axis=1).max())
        if longest + self.query_positions > self.max_positions:
            raise ValueError(
                f"A prompt of {longest:,} tokens and the queries of its picture need {longest + self.query_positions:,} "
                f"positions, but the model has {self.max_positions:,}; shorten the prompt."
            )
        data["image_size"] = np.array(sizes, dtype=np.int64)
        return self._batch(data | self._kept(masks, sources, sizes, source_fit), merged)

    def _kept(
        self, masks: Any, sources: Sequence[Image.Image | None], sizes: Sequence[tuple[int, int]], source_fit: str
    ) -> dict[str, list[np.ndarray | None]]:
        """Where each row is painted anew, by cells, and the pixels of its source; nothing where no row has a mask."""
        given = as_rows(masks, len(sources), "mask_images")
        opened = [open_row_mask(mask, source, index) for index, (mask, source) in enumerate(zip(given, sources))]
        if all(mask is None for mask in opened):
            return {}
        repainted: list[np.ndarray | None] = []
        pixels: list[np.ndarray | None] = []
        for mask, source, (height, width) in zip(opened, sources, sizes, strict=True):
            fitted = functools.partial(self.image_processor.to_pixels, height=height, width=width, fit=source_fit)
            kept = mask is not None and source is not None
            repainted.append(fitted_cells(mask, fitted, self.size_multiple) if kept else None)
            pixels.append(fitted(source) if kept else None)
        return {"repaint_mask": repainted, "source_pixel_values": pixels}

    def prompt_to_draw(self, text: str, is_edit: bool) -> str:
        """The rendered chat that a prompt is drawn from.

        Args:
            text: plain, or as a rendered chat of one turn.
            is_edit: whether a picture stands before the words.

        Raises:
            ValueError: for an empty prompt, special tokens in it, and chats of more than one turn.
        """
        history, words = split_chat(text) if IM_START in text else ("", text)
        words = words.replace(IMAGE_BLOCK, "").replace(IMAGE_PAD, "").strip()
        self.abilities.check_prompt(words)
        content = [{"type": "image"}] if is_edit else []
        message = {"role": "user", "content": [*content, {"type": "text", "text": words}]}
        chat: str = self.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
        if history not in ("", split_chat(chat)[0]):
            raise ValueError(
                "A HieraQuery model draws from one prompt without a system's words or earlier turns; give the last message "
                "alone."
            )
        return chat

    def _sizes(self, wishes: SizeWishes, sources: Sequence[Image.Image | None]) -> list[tuple[int, int]]:
        """The size of each row's picture, in pixels."""
        asked = {name: as_rows(value, len(sources), name) for name, value in vars(wishes).items()}
        sizes, abilities = [], self.abilities
        for index, source in enumerate(sources):
            height, width, ratio = (values[index] for values in asked.values())
            size = abilities.pick_size(height, width, ratio, source)
            abilities.check_size(*size)
            sizes.append(size)
        return sizes

    def _rows(
        self, texts: Sequence[str], images: Sequence[Image.Image], merged: dict[str, dict[str, Any]]
    ) -> dict[str, Any]:
        """Padded rows of rendered chats and the patches of what they show."""
        vision, lengths = navit_patches(self.image_processor, images, merged["images_kwargs"])
        options = tokenizer_options(merged["text_kwargs"])
        image_id, video_id = self.tokenizer.convert_tokens_to_ids([IMAGE_PAD, VIDEO_PAD])
        shown = [image_id] if video_id in (None, self.tokenizer.unk_token_id) else [image_id, video_id]
        rows: list[TokenRow] = []
        for number, text in enumerate(expand_rows(texts, lengths)):
            ids = list(self.tokenizer(text, **options)["input_ids"])
            if options.get("truncation"):
                needed = text.count(IMAGE_PAD) + text.count(VIDEO_PAD)
                refuse_cut_images(number, sum(map(ids.count, shown)), needed, options["max_length"])
            rows.append({"input_ids": ids})
        data: dict[str, Any] = pad_rows(self.tokenizer.pad_token_id, rows, merged["text_kwargs"])
        types = {token: number for number, token in enumerate(shown, start=1)}
        padded = data["input_ids"]
        if isinstance(padded, np.ndarray):
            data["mm_token_type_ids"] = sum((padded == token) * number for token, number in types.items()).astype(
                np.int64
            )
        else:
            data["mm_token_type_ids"] = [[types.get(token, 0) for token in row] for row in padded]
        return data | vision

    def _batch(self, data: dict[str, Any], merged: dict[str, dict[str, Any]]) -> HieraQueryBatchFeature:
        return HieraQueryBatchFeature.of_arrays(data, merged["text_kwargs"].get("return_tensors"))
