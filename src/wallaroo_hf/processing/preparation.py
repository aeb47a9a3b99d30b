"""The steps from chats, prompts and images to rows of tensors; `WallarooProcessor` inherits them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..layout import grid, prompts
from ..layout.special_tokens import (
    GENERATE_IMAGE_PAD,
    GENERATE_START,
    IMAGE_PAD,
    PIXEL_END,
    PIXEL_START,
    VISION_START,
    indicator_token,
)
from .batch import VQ_PIXEL_KEYS, WallarooBatchFeature
from .image_processor import WallarooImageProcessor, flatten_images
from .requests import DrawingRequest, read_auto_rows
from .rows import TokenRow, expand_vision, pad, tokenize

SOURCE_MARK = "\x00source\x00"  # stands for the rows of a source block until the vision blocks are written out


class PreparationMixin:
    """Needs the settings of [`WallarooProcessor`]; what they mean is said there."""

    image_processor: WallarooImageProcessor
    tokenizer: Any
    buckets: list[tuple[int, int]]
    indicator_sizes: list[int]
    size_indicators: bool
    line_breaks: bool
    prompt_templates: dict[str, dict[str, list[str]]]
    image_token_size: int
    pixel_limits: dict[str, dict[str, int]]
    has_editing: bool

    def _understand(
        self, texts: list[str], images: Any, merged: dict[str, dict[str, Any]], return_labels: bool
    ) -> WallarooBatchFeature:
        flat = flatten_images(images)
        placeholders = [item.count(IMAGE_PAD) for item in texts]
        if sum(placeholders) != len(flat):
            raise ValueError(
                f"The prompts hold {sum(placeholders)} {IMAGE_PAD} placeholders, but {len(flat)} images were given; "
                "they must match (`processor.apply_chat_template` writes one per image)."
            )
        limits = self.pixel_limits.get("understanding")
        vision, lengths = self._navit(flat, limits, merged["images_kwargs"])
        queue = iter(lengths)
        expanded = [expand_vision(item, [next(queue) for _ in range(n)]) for item, n in zip(texts, placeholders)]
        rows = tokenize(
            self.tokenizer, expanded, merged["text_kwargs"], prompts.answer_spans if return_labels else None
        )
        return self._batch(pad(self.tokenizer, rows, merged["text_kwargs"]) | vision, merged)

    def _prepare_auto(
        self,
        texts: list[str],
        images: Any,
        size_options: dict[str, Any],
        negative_prompt: Any,
        merged: dict[str, dict[str, Any]],
    ) -> WallarooBatchFeature:
        """Chats whose images can be understood and edited, and a null prompt for each row, in case it draws."""
        rows = read_auto_rows(texts, images, size_options, negative_prompt, self.buckets)
        for row in rows:
            grid.check_size(*row.size, self.image_token_size, plain_grid=not self.line_breaks)
        flat = [(image, row.size) for row in rows for image in row.images]
        limits = self.pixel_limits.get("editing")
        pixels, lengths = self._navit([image for image, _ in flat], limits, merged["images_kwargs"])
        queue = iter(lengths)
        written = []
        for row in rows:
            announced = self._indicators(*row.size) if row.size_was_asked_for else ""
            block = f"{PIXEL_START}{SOURCE_MARK}{PIXEL_END}{VISION_START}" if self.has_editing else VISION_START
            text = prompts.announce_size(row.text, announced).replace(VISION_START, block)
            text = expand_vision(text, [next(queue) for _ in row.images])
            rows_of_source, cols = (edge // self.image_token_size for edge in row.size)
            source = grid.render_rows(IMAGE_PAD, rows_of_source, cols, self.line_breaks)
            written.append(text.replace(SOURCE_MARK, source))
        conditional = tokenize(self.tokenizer, written, merged["text_kwargs"], None)
        if flat and self.has_editing:
            pixels["source_pixel_values"] = [self.image_processor.to_vq_pixels(image, *size) for image, size in flat]
        nulls = [row.null if self.has_editing else dataclasses.replace(row.null, source=None) for row in rows]
        negative, negative_pixels = self._branch(nulls, 0, "trained", merged, False)
        data = pad(self.tokenizer, conditional, merged["text_kwargs"]) | pixels
        unconditional = pad(self.tokenizer, negative, merged["text_kwargs"]) | negative_pixels
        data |= {f"negative_{key}": value for key, value in unconditional.items()}
        data["target_grid_hw"] = self._grids([row.size for row in rows])
        return self._batch(data, merged)

    # ----------------------------------------------------------------------------------------------------- drawing

    def _draw(
        self,
        requests: list[DrawingRequest],
        template: int | str,
        layout: str,
        merged: dict[str, dict[str, Any]],
        return_labels: bool,
        source_guidance: bool,
    ) -> WallarooBatchFeature:
        text_kwargs = merged["text_kwargs"]
        if text_kwargs.get("truncation"):
            raise ValueError("`truncation` would cut an image in two; shorten the prompt instead.")
        training = any(request.target is not None for request in requests)
        if return_labels and not training:
            raise ValueError("`return_labels=True` needs `target_images` when drawing.")
        conditional, pixels = self._branch(requests, template, layout, merged, return_labels)
        if training:
            pixels["target_pixel_values"] = [
                self.image_processor.to_vq_pixels(request.target, *request.size)
                for request in requests
                if request.target is not None
            ]
            data = pad(self.tokenizer, conditional, text_kwargs) | pixels
        else:
            branches = {"": (conditional, pixels)}
            others = {"negative_": [request.unconditional() for request in requests]}
            if source_guidance:
                others["unprompted_"] = [request.unprompted() for request in requests]
            for prefix, rewritten in others.items():
                branches[prefix] = self._branch(rewritten, template, layout, merged, False)
            padded = pad(self.tokenizer, [row for rows, _ in branches.values() for row in rows], text_kwargs)
            data = {}
            for index, (prefix, (_, branch_pixels)) in enumerate(branches.items()):
                mine = slice(index * len(requests), (index + 1) * len(requests))
                data |= {f"{prefix}{key}": value[mine] for key, value in padded.items()}
                data |= {f"{prefix}{key}": value for key, value in branch_pixels.items()}
        data["target_grid_hw"] = self._grids([request.size for request in requests])
        return self._batch(data, merged)

    def _grids(self, sizes: Sequence[tuple[int, int]]) -> np.ndarray:
        return np.array(sizes, dtype=np.int64) // self.image_token_size  # (B, 2)

    def _branch(
        self,
        requests: list[DrawingRequest],
        template: int | str,
        layout: str,
        merged: dict[str, dict[str, Any]],
        return_labels: bool,
    ) -> tuple[list[TokenRow], dict[str, Any]]:
        """Token rows (unpadded) and pixels of one guidance branch."""
        edits = [request for request in requests if request.source is not None]
        sources = [request.source for request in edits if request.source is not None]
        vision, lengths = self._navit(sources, self.pixel_limits.get("editing"), merged["images_kwargs"])
        queue = iter(lengths)
        texts = []
        for request in requests:
            text = self._turn(request, template).render(layout)
            if request.source is not None:
                head, vision_start, tail = text.rpartition(VISION_START)
                text = head + vision_start + expand_vision(tail, [next(queue)])
            if request.target is not None:
                text += prompts.render_answer(self._rows(GENERATE_IMAGE_PAD, request))
            texts.append(text)
        spans = _drawn_spans if return_labels else None
        rows = tokenize(self.tokenizer, texts, merged["text_kwargs"], spans)
        if edits:
            vision["source_pixel_values"] = [
                self.image_processor.to_vq_pixels(source, *request.size, request.fit)
                for request, source in zip(edits, sources, strict=True)
            ]
        return rows, vision

    def _turn(self, request: DrawingRequest, template: int | str) -> prompts.DrawingTurn:
        height, width = request.size
        templates = self.prompt_templates["generation" if request.source is None else "editing"]
        instruction = prompts.fill_template(template, templates, request.language, request.prompt, height, width)
        indicators = self._indicators(height, width)
        source = "" if request.source is None else self._rows(IMAGE_PAD, request)
        history = {} if request.history is None else {"history": request.history}
        return prompts.DrawingTurn(instruction, indicators, source, **history)

    def _indicators(self, height: int, width: int) -> str:
        """The announcement of a size, height first, or "" where the checkpoint has none."""
        if not self.size_indicators:
            return ""
        nearest = (grid.nearest_indicator(edge, self.indicator_sizes) for edge in (height, width))
        return "".join(indicator_token(size) for size in nearest)

    def _rows(self, placeholder: str, request: DrawingRequest) -> str:
        rows, cols = (edge // self.image_token_size for edge in request.size)
        return grid.render_rows(placeholder, rows, cols, self.line_breaks)

    # ------------------------------------------------------------------------------------------------ shared steps

    def _navit(
        self, images: list[Image.Image], limits: dict[str, int] | None, images_kwargs: dict[str, Any]
    ) -> tuple[dict[str, Any], list[int]]:
        """NaViT patches of a list of images, and the number of tokens that each becomes."""
        if not images:
            return {}, []
        options = dict(images_kwargs)
        options.pop("return_tensors", None)
        if limits is not None:
            options.setdefault("size", limits)
        vision = self.image_processor(images, return_tensors="np", **options)
        grids = vision["image_grid_thw"]
        lengths = (grids.prod(axis=-1) // self.image_processor.merge_size**2).tolist()
        return {"pixel_values": vision["pixel_values"], "image_grid_thw": grids}, lengths

    def _batch(self, data: dict[str, Any], merged: dict[str, dict[str, Any]]) -> WallarooBatchFeature:
        tensor_type = merged["text_kwargs"].get("return_tensors")
        ragged = {key: data.pop(key) for key in VQ_PIXEL_KEYS if key in data}
        if tensor_type is None:
            data = {key: value.tolist() if value.dtype == np.int64 else value for key, value in data.items()}
        batch = WallarooBatchFeature(data, tensor_type=tensor_type)
        for key, arrays in ragged.items():
            batch[key] = (
                arrays
                if tensor_type is None
                else [WallarooBatchFeature({key: array}, tensor_type=tensor_type)[key] for array in arrays]
            )
        return batch


def _drawn_spans(text: str) -> list[tuple[int, int]]:
    """In a training row that ends with an image, everything from its `<|generate_start|>` on is learned."""
    return [(text.rindex(GENERATE_START), len(text))]
