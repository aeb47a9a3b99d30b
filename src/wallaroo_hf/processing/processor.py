"""`WallarooProcessor`: prompts and images to model inputs, decoded pixels and ids back to images and text."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from transformers import AutoTokenizer
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, TextKwargs

from ..layout import grid, prompts
from ..layout.special_tokens import (
    GENERATE_IMAGE_PAD,
    GENERATE_START,
    IMAGE_PAD,
    RELEASED_INDICATOR_SIZES,
    VISION_START,
    added_tokens,
    indicator_token,
)
from .agreement import check_folder_agreement
from .batch import VQ_PIXEL_KEYS, WallarooBatchFeature
from .image_processor import WallarooImageProcessor, check_fit, flatten_images, open_image
from .requests import DrawingRequest, read_requests
from .rows import expand_vision, pad, tokenize

__all__ = ["WallarooProcessor"]

GENERATION_MODES = ("text", "image")
# Released limits on what NaViT sees of an image, in pixels (shortest_edge and longest_edge are areas, as in Qwen2-VL).
EDITING_PIXEL_LIMITS = {"shortest_edge": 12544, "longest_edge": 188160}


class WallarooProcessorKwargs(ProcessingKwargs, total=False):  # type: ignore[call-arg]
    """Keyword arguments for the tokenizer (`text_kwargs`) and the image processor (`images_kwargs`)."""

    _defaults = {"text_kwargs": {"padding": True, "padding_side": "left"}}


class WallarooProcessor(ProcessorMixin):
    r"""Prepares text, images to understand, images to edit and sizes for `WallarooForConditionalGeneration`.

    Args:
        image_processor (`WallarooImageProcessor`): both image streams.
        tokenizer (`PreTrainedTokenizerBase`): a Qwen2.5-VL tokenizer with Wallaroo's added tokens.
        chat_template (`str`, *optional*): Jinja template; Qwen2.5-VL's.
        buckets (`list[tuple[int, int]]`): the `(height, width)` sizes to choose from, in pixels.
        indicator_sizes (`list[int]`): edge lengths that have an `<indicator:N>` token.
        size_indicators (`bool`): whether prompts announce the size with indicator tokens (stages 3b and 4).
        line_breaks (`bool`): whether `<|end_of_line>|` stands between rows of image tokens (stages 3b and 4).
        prompt_templates (`dict`): task (`"generation"`, `"editing"`) → language (`"en"`, `"zh"`) → templates.
        image_token_size (`int`): edge of one image token in pixels.
        pixel_limits (`dict`): task → `{"shortest_edge", "longest_edge"}`, the areas in pixels between which NaViT sees
            an image; tasks not named use the image processor's own `size`.
    """

    image_processor: WallarooImageProcessor

    def __init__(
        self,
        image_processor: WallarooImageProcessor,
        tokenizer: Any,
        chat_template: str | None = None,
        buckets: Sequence[Sequence[int]] = grid.BUCKETS_512,
        indicator_sizes: Sequence[int] = RELEASED_INDICATOR_SIZES,
        size_indicators: bool = True,
        line_breaks: bool = True,
        prompt_templates: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
        image_token_size: int = 16,
        pixel_limits: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        self.buckets = [(int(height), int(width)) for height, width in buckets]
        self.indicator_sizes = [int(size) for size in indicator_sizes]
        self.size_indicators = size_indicators
        self.line_breaks = line_breaks
        source = prompt_templates if prompt_templates is not None else prompts.PROMPT_TEMPLATES
        self.prompt_templates = {
            task: {language: list(texts) for language, texts in by_language.items()}
            for task, by_language in source.items()
        }
        self.image_token_size = image_token_size
        limits = pixel_limits if pixel_limits is not None else {"editing": EDITING_PIXEL_LIMITS}
        self.pixel_limits = {task: dict(limit) for task, limit in limits.items()}
        self.image_token = IMAGE_PAD
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        needed = added_tokens(self.indicator_sizes if size_indicators else ())
        missing = [
            token for token in needed if tokenizer.convert_tokens_to_ids(token) in (None, tokenizer.unk_token_id)
        ]
        if missing:
            raise ValueError(
                f"The tokenizer lacks the tokens {', '.join(missing)}; load it from a converted checkpoint "
                "(`wallaroo convert`), or add them with `tokenizer.add_tokens(..., special_tokens=True)`."
            )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> "WallarooProcessor":
        """Loads a processor and checks that it agrees with the model's configuration in the same place.

        Raises:
            ValueError: if `config.json` or `generation_config.json` there say otherwise about token ids, line breaks
                or the image tokenizer.
        """
        processor = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        check_folder_agreement(processor, pretrained_model_name_or_path, kwargs)
        return processor

    @classmethod
    def _load_tokenizer_from_pretrained(
        cls, sub_processor_type: str, pretrained_model_name_or_path: Any, subfolder: str = "", **kwargs: Any
    ) -> Any:
        return AutoTokenizer.from_pretrained(pretrained_model_name_or_path, subfolder=subfolder, **kwargs)

    # ------------------------------------------------------------------------------------------------ to the model

    def __call__(
        self,
        images: Any = None,
        text: str | list[str] | None = None,
        videos: Any = None,
        audio: Any = None,
        *,
        generation_mode: str = "text",
        height: int | list[int] | None = None,
        width: int | list[int] | None = None,
        aspect_ratio: str | float | list[str | float] | None = None,
        negative_prompt: str | list[str] | None = None,
        prompt_template: int | str = 0,
        layout: str = "trained",
        target_images: Any = None,
        return_labels: bool = False,
        source_guidance: bool = False,
        source_fit: str = "crop",
        **kwargs: Any,
    ) -> WallarooBatchFeature:
        """Prepares a batch.

        Args:
            images: images to understand (text mode, one per `<|image_pad|>`), or one source per row to edit (image
                mode; `None` for rows that have none). PIL images, paths, URLs, arrays; nested lists are accepted.
            text: prompts. In text mode a rendered chat; in image mode what to draw or how to edit, either plain or as a
                rendered chat, of which the last user turn is taken.
            generation_mode: `"text"` to answer, `"image"` to draw.
            height, width: size of the image to draw in pixels, one for all or one per row; multiples of
                `image_token_size`, honoured as given.
            aspect_ratio: width to height (`"16:9"` or `1.78`); picks a bucket. Default: the most square bucket, or for
                an edit the bucket nearest to its source.
            negative_prompt: what guidance steers away from; default the empty prompt.
            prompt_template: index into the templates of the prompt's language, or a format string.
            layout: `"trained"`, or `"published_eval"` for the order of tokens in the released evaluation scripts.
            target_images: the images that the rows shall become (training): rows then end with the placeholders of the
                image and the end of the turn, and there is no unconditional branch.
            return_labels: also return `labels` (training): the assistant's tokens, -100 elsewhere.
            source_guidance: also prepare the third branch of two-scale editing guidance (source, but no instruction), for
                `generate(source_guidance_scale=...)`. The released recipe always drops both together, so it never
                trained this branch.
            source_fit: how a source whose shape differs from the size to draw is brought to it: `"crop"` (as in training)
                or `"pad"` (nothing is lost); see [`WallarooImageProcessor.to_vq_pixels`].

        Returns:
            `WallarooBatchFeature` with `input_ids`, `attention_mask`, `mm_token_type_ids` (all `(B, T)`, int64) and
            where there are images `pixel_values` `(patches, C)` float32 and `image_grid_thw` `(images, 3)`. In image
            mode also `target_grid_hw` `(B, 2)`, for edits `source_pixel_values` (list of `(3, H, W)` float32 in
            [-1, 1]), and the unconditional branch under the same names with the prefix `negative_` (with
            `source_guidance` also the branch without instruction, prefix `unprompted_`). In training
            `target_pixel_values` (list) and `labels` `(B, T)`.

        Raises:
            ValueError: for sizes, images, prompts or arguments that cannot be drawn from; one sentence each.
        """
        if videos is not None or audio is not None:
            raise ValueError("Video and audio input is not supported yet; pass `images` (for a video, single frames).")
        if generation_mode not in GENERATION_MODES:
            raise ValueError(f"`generation_mode` is {generation_mode!r}, but must be one of {GENERATION_MODES}.")
        merged = self._merged_kwargs(kwargs)
        if text is None:
            raise ValueError("`text` is missing: give a prompt, or a list with one per row.")
        texts = [text] if isinstance(text, str) else list(text)
        if not texts or not all(isinstance(item, str) for item in texts):
            raise ValueError("`text` must be a string or a non-empty list of strings.")
        if generation_mode == "text":
            drawing_only: dict[str, Any] = {"height": height, "width": width, "aspect_ratio": aspect_ratio}
            drawing_only |= {"negative_prompt": negative_prompt, "target_images": target_images}
            given = [name for name, value in drawing_only.items() if value is not None]
            if given:
                raise ValueError(f"`{given[0]}` is for drawing; pass generation_mode='image' with it.")
            return self._understand(texts, images, merged, return_labels)
        if layout not in prompts.LAYOUTS:
            raise ValueError(f"`layout` is {layout!r}, but must be one of {prompts.LAYOUTS}.")
        check_fit(source_fit)
        requests = read_requests(
            texts,
            images,
            {
                "height": height,
                "width": width,
                "aspect_ratio": aspect_ratio,
                "negative_prompt": negative_prompt,
                "target_images": target_images,
            },
            self.buckets,
            self.tokenizer.get_added_vocab(),
        )
        requests = [dataclasses.replace(request, fit=source_fit) for request in requests]
        for request in requests:
            grid.check_size(*request.size, self.image_token_size, plain_grid=not self.line_breaks)
        return self._draw(requests, prompt_template, layout, merged, return_labels, source_guidance)

    def _merged_kwargs(self, kwargs: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Sorts keyword arguments by modality, as every processor does, but refuses unknown ones."""
        known = set(TextKwargs.__annotations__) | set(self.image_processor.valid_kwargs.__annotations__)
        known |= (
            set(WallarooProcessorKwargs.__annotations__) | set(ProcessingKwargs.__annotations__) | {"common_kwargs"}
        )
        for key in kwargs:
            if key not in known:
                close = difflib.get_close_matches(
                    key, [*known, "height", "width", "aspect_ratio", "generation_mode"], 1
                )
                hint = f"; did you mean `{close[0]}`?" if close else "."
                raise TypeError(f"WallarooProcessor got an unexpected argument `{key}`{hint}")
        return self._merge_kwargs(WallarooProcessorKwargs, tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)

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
        grids = [
            (height // self.image_token_size, width // self.image_token_size)
            for height, width in (request.size for request in requests)
        ]
        data["target_grid_hw"] = np.array(grids, dtype=np.int64)
        return self._batch(data, merged)

    def _branch(
        self,
        requests: list[DrawingRequest],
        template: int | str,
        layout: str,
        merged: dict[str, dict[str, Any]],
        return_labels: bool,
    ) -> tuple[list[dict[str, list[int]]], dict[str, Any]]:
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
        indicators = ""
        if self.size_indicators:
            indicators = "".join(
                indicator_token(grid.nearest_indicator(edge, self.indicator_sizes)) for edge in (height, width)
            )
        source = "" if request.source is None else self._rows(IMAGE_PAD, request)
        history = {} if request.history is None else {"history": request.history}
        return prompts.DrawingTurn(instruction, indicators, source, **history)

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

    # --------------------------------------------------------------------------------------------------- and back

    def post_process_multimodal_output(
        self,
        generated_outputs: Any,
        skip_special_tokens: bool = True,
        generation_mode: str | None = None,
        clean_up_tokenization_spaces: bool = False,
    ) -> list[Any]:
        """Turns what the model made into what a person reads or sees.

        Args:
            generated_outputs: in image mode the pixels from `model.decode_image_tokens`; in text mode token ids `(B, T)`.
            skip_special_tokens: text mode: leave out special tokens.
            generation_mode: `"image"` or `"text"` (default).

        Returns:
            A list of `PIL.Image.Image`, or of `str`.
        """
        if generation_mode == "image":
            return self.image_processor.from_vq_pixels(generated_outputs)
        if generation_mode not in (None, "text"):
            raise ValueError(f"`generation_mode` is {generation_mode!r}, but must be 'text' or 'image'.")
        return self.post_process_image_text_to_text(
            generated_outputs, skip_special_tokens, clean_up_tokenization_spaces
        )

    def fit_back(
        self, images: Sequence[Image.Image], sources: Sequence[Any], source_fit: str = "crop"
    ) -> list[Image.Image]:
        """Brings edited images back to the scale of their sources; see [`WallarooImageProcessor.fit_back`].

        Args:
            images: edited images, one per source.
            sources: the images that were edited, as they were given.
            source_fit: as it was given when the inputs were prepared.
        """
        return [
            self.image_processor.fit_back(image, open_image(source), source_fit)
            for image, source in zip(images, sources, strict=True)
        ]

    def post_process_image_text_to_text(
        self,
        generated_outputs: Any,
        skip_special_tokens: bool = True,
        clean_up_tokenization_spaces: bool = False,
    ) -> list[str]:
        """Decodes token ids `(B, T)` into text; image codes (ids beyond the vocabulary) are left out."""
        rows = generated_outputs.tolist() if hasattr(generated_outputs, "tolist") else generated_outputs
        known = len(self.tokenizer)
        return self.tokenizer.batch_decode(
            [[token for token in row if token < known] for row in rows],
            skip_special_tokens=skip_special_tokens,
            clean_up_tokenization_spaces=clean_up_tokenization_spaces,
        )

    @property
    def model_input_names(self) -> list[str]:
        """Every tensor that this processor can emit."""
        names = ["input_ids", "attention_mask", "mm_token_type_ids", "pixel_values", "image_grid_thw"]
        names.append("source_pixel_values")
        branches = [f"{prefix}{name}" for prefix in ("", "negative_", "unprompted_") for name in names]
        return [*branches, "target_grid_hw", "target_pixel_values", "labels"]


def _drawn_spans(text: str) -> list[tuple[int, int]]:
    """In a training row that ends with an image, everything from its `<|generate_start|>` on is learned."""
    return [(text.rindex(GENERATE_START), len(text))]
