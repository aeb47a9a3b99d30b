"""The steps from chats, prompts and images to rows of tensors; `WallarooProcessor` inherits them."""

import functools
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..common.chat_form import expand_rows, require_placeholders
from ..common.navit_images import black_patches, count_vision_tokens, navit_patches
from ..common.navit_videos import VideoSettings, navit_videos
from ..layout import grid, prompt_texts
from ..layout.special_tokens import GENERATE_IMAGE_PAD, IMAGE_PAD, VIDEO_PAD, VISION_START, indicator_token
from ..pictures.masks import fitted_cells
from ..pictures.videos import flatten_videos
from .batch import WallarooBatchFeature
from .drawing_requests import DrawingRequest
from .image_processor import WallarooImageProcessor, flatten_images
from .refused_words import refuse_special_tokens, refused_tokens
from .token_rows import TokenRow, pad, tokenize


class PreparationMixin:
    """Needs the settings of [`WallarooProcessor`]; what they mean is said there."""

    image_processor: WallarooImageProcessor
    tokenizer: Any
    buckets: list[tuple[int, int]]
    indicator_sizes: list[int]
    size_indicators: bool
    line_breaks: bool
    prompt_templates: dict[str, dict[str, list[str]]]
    start_tokens = prompt_texts.START_TOKENS
    image_token_size: int
    pixel_limits: dict[str, dict[str, int]]
    has_editing: bool

    def _understand(
        self, texts: list[str], images: Any, videos: Any, merged: dict[str, dict[str, Any]], return_labels: bool
    ) -> WallarooBatchFeature:
        flat, clips = flatten_images(images), flatten_videos(videos)
        require_placeholders(texts, IMAGE_PAD, len(flat), "image")
        require_placeholders(texts, VIDEO_PAD, len(clips), "video")
        limits = self.pixel_limits.get("understanding")
        vision, lengths = self._navit(flat, limits, merged["images_kwargs"])
        expanded = expand_rows(texts, lengths, IMAGE_PAD)
        if clips:
            settings = VideoSettings.read(merged["videos_kwargs"], self.video_limits)
            seen, lengths = navit_videos(self.image_processor, clips, settings)
            expanded, vision = expand_rows(expanded, lengths, VIDEO_PAD), vision | seen
        rows = tokenize(
            self.tokenizer, expanded, merged["text_kwargs"], prompt_texts.answer_spans if return_labels else None
        )
        return self._batch(pad(self.tokenizer, rows, merged["text_kwargs"]) | vision, merged)

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
        training = any(request.target is not None for request in requests)
        if return_labels and not training:
            raise ValueError("`return_labels=True` needs `target_images` when drawing.")
        conditional, pixels = self._branch(requests, template, layout, merged, return_labels)
        if training:
            pixels |= self._targets([(request.target, request.size) for request in requests])
            data = pad(self.tokenizer, conditional, text_kwargs) | pixels
        else:
            branches = {"": (conditional, pixels)}
            others = {"negative_": [request.null_prompt() for request in requests]}
            if source_guidance:
                others["unprompted_"] = [request.unprompted() for request in requests]
            for prefix, rewritten in others.items():
                grids = pixels.get("image_grid_thw")
                branches[prefix] = self._branch(rewritten, template, layout, merged, False, grids)
            padded = pad(self.tokenizer, [row for rows, _ in branches.values() for row in rows], text_kwargs)
            data = {}
            for index, (prefix, (_, branch_pixels)) in enumerate(branches.items()):
                mine = slice(index * len(requests), (index + 1) * len(requests))
                data |= {f"{prefix}{key}": value[mine] for key, value in padded.items()}
                data |= {f"{prefix}{key}": value for key, value in branch_pixels.items()}
        data["target_grid_hw"] = self._grids([request.size for request in requests])
        if any(request.mask is not None for request in requests):
            data["repaint_mask"] = [self._repainted(request) for request in requests]
        return self._batch(data, merged)

    def _repainted(self, request: DrawingRequest) -> np.ndarray | None:
        """Which codes of a row are drawn, `(rows, cols)`, brought to its size as its source is; None = all."""
        if request.mask is None:
            return None
        to_pixels = functools.partial(self._fitted, request)
        return fitted_cells(request.mask, to_pixels, self.image_token_size)

    def _fitted(self, request: DrawingRequest, picture: Image.Image) -> np.ndarray:
        """A picture as the image tokenizer takes it, at a row's size, `(3, H, W)`."""
        return self.image_processor.to_vq_pixels(picture, *request.size, request.fit)

    def _grids(self, sizes: Sequence[tuple[int, int]]) -> np.ndarray:
        return np.array(sizes, dtype=np.int64) // self.image_token_size  # (B, 2)

    def _branch(
        self,
        requests: list[DrawingRequest],
        template: int | str,
        layout: str,
        merged: dict[str, dict[str, Any]],
        return_labels: bool,
        grids: np.ndarray | None = None,
    ) -> tuple[list[TokenRow], dict[str, Any]]:
        """Token rows (unpadded) and pixels of one guidance branch.

        Args:
            grids: `image_grid_thw` of the sources, where another branch has been prepared with them: a null prompt's are
                black, and of the same size.
        """
        edits = [(request, source) for request in requests for source in request.sources]
        limits = self.pixel_limits.get("editing")
        if grids is not None and all(request.is_black for request, _ in edits):
            options = self._navit_options(limits, merged["images_kwargs"])
            vision, lengths = black_patches(self.image_processor, grids, options)
        else:
            vision, lengths = self._navit([source for _, source in edits], limits, merged["images_kwargs"])
        queue = iter(lengths)
        texts, starts, refused = [], set(), refused_tokens(self.tokenizer)
        for request in requests:
            turn = self._turn(request, template)
            refuse_special_tokens("prompt in its template", turn.instruction, refused)
            text = turn.render(layout)
            starts.add(turn.start)
            if request.sources:
                history, *blocks = text.split(VISION_START)  # the history shows none
                seen = [IMAGE_PAD * next(queue) + block.removeprefix(IMAGE_PAD) for block in blocks]
                text = VISION_START.join([history, *seen])
            if request.target is not None:
                text += prompt_texts.render_answer(self._rows(GENERATE_IMAGE_PAD, request.size))
            texts.append(text)
        spans = functools.partial(_drawn_spans, starts) if return_labels else None
        rows = tokenize(self.tokenizer, texts, merged["text_kwargs"], spans)
        if edits:
            vision["source_pixel_values"] = [
                self.image_processor.black_vq_pixels(*request.size)
                if request.is_black
                else self._fitted(request, source)
                for request, source in edits
            ]
        return rows, vision

    def _turn(self, request: DrawingRequest, template: int | str) -> prompt_texts.DrawingTurn:
        height, width = request.size
        templates = self.prompt_templates[request.image_task]
        instruction = prompt_texts.fill_template(template, templates, request.language, request.prompt, height, width)
        indicators = self._indicators(height, width)
        source = self._rows(IMAGE_PAD, request.size) if request.sources else ""
        history = {} if request.history is None else {"history": request.history}
        start = self.start_tokens[request.image_task]
        count = len(request.sources)
        return prompt_texts.DrawingTurn(instruction, indicators, source, start=start, num_sources=count, **history)

    def _indicators(self, height: int, width: int) -> str:
        """The announcement of a size, height first, or "" where the checkpoint has none."""
        if not self.size_indicators:
            return ""
        nearest = (grid.nearest_indicator(edge, self.indicator_sizes) for edge in (height, width))
        return "".join(indicator_token(size) for size in nearest)

    def _rows(self, placeholder: str, size: tuple[int, int]) -> str:
        rows, cols = (edge // self.image_token_size for edge in size)
        return grid.render_rows(placeholder, rows, cols, self.line_breaks)

    # ------------------------------------------------------------------------------------------- images to learn

    def _targets(
        self, targets: Sequence[tuple[Image.Image | np.ndarray | None, tuple[int, int]]]
    ) -> dict[str, list[np.ndarray | None]]:
        """Pixels of those targets that the model has to encode, each brought to its size, and codes of the others.

        Where codes begin among the ids is known to the model alone: in the rows all targets are placeholders.
        """
        given = [(target, size) for target, size in targets if target is not None]
        pixels: list[np.ndarray | None] = [
            self.image_processor.to_vq_pixels(target, *size)
            for target, size in given
            if isinstance(target, Image.Image)
        ]
        codes = [target.astype(np.int64) if isinstance(target, np.ndarray) else None for target, _ in given]
        found = {"target_pixel_values": pixels} if pixels else {}
        return found | ({"target_image_tokens": codes} if any(code is not None for code in codes) else {})

    # ------------------------------------------------------------------------------------------------ shared steps

    @property
    def video_limits(self) -> dict[str, int] | None:
        """The areas in pixels between which frames of videos are seen; None = Qwen2.5-VL's own."""
        return self.pixel_limits.get("video", self.pixel_limits.get("understanding"))

    def num_vision_tokens(self, image: Image.Image, task: str) -> int:
        """How many tokens an image becomes where it is understood, told from its size alone.

        Args:
            task: whose `pixel_limits` count: `"understanding"` (text mode) or `"editing"` (the other modes).
        """
        names = {"shortest_edge": "min_pixels", "longest_edge": "max_pixels"}
        limits = {names[edge]: area for edge, area in self.pixel_limits.get(task, {}).items()}
        return count_vision_tokens(self.image_processor, image.height, image.width, limits)

    def _navit(
        self, images: list[Image.Image], limits: dict[str, int] | None, images_kwargs: dict[str, Any]
    ) -> tuple[dict[str, Any], list[int]]:
        """NaViT patches of a list of images, and the number of tokens that each becomes."""
        return navit_patches(self.image_processor, images, self._navit_options(limits, images_kwargs))

    @staticmethod
    def _navit_options(limits: dict[str, int] | None, images_kwargs: dict[str, Any]) -> dict[str, Any]:
        return images_kwargs if limits is None else {"size": limits, **images_kwargs}

    def _batch(self, data: dict[str, Any], merged: dict[str, dict[str, Any]]) -> WallarooBatchFeature:
        return WallarooBatchFeature.of_arrays(data, merged["text_kwargs"].get("return_tensors"))


def _drawn_spans(starts: Collection[str], text: str) -> list[tuple[int, int]]:
    """In a training row that ends with an image, everything from what opens it (one of `starts`) on is learned."""
    return [(max(text.rfind(start) for start in starts), len(text))]
