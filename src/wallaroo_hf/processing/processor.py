"""`WallarooProcessor`: prompts and images to model inputs, decoded pixels and ids back to images and text."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..common.navit_videos import VIDEO_KEYWORDS, SeesVideos
from ..common.processor_base import ProcessorBase
from ..common.row_values import as_texts
from ..families.vocabulary import KnownWords
from ..files.whole_text import refuse_halves
from ..layout import grid, prompt_texts
from ..layout.special_tokens import END_OF_LINE, IMAGE_PAD, RELEASED_INDICATOR_SIZES, VIDEO_PAD, added_tokens
from .agreement import check_folder_agreement, read_model_config, take_first_image_token_id
from .auto_preparation import AutoPreparationMixin
from .batch import WallarooBatchFeature
from .door_methods import ProcessorDoorsMixin
from .drawing_requests import check_mode_arguments, read_requests
from .image_processor import WallarooImageProcessor, check_fit
from .next_turn import continue_chat
from .pieces import split_pieces
from .refused_words import refuse_in_rendered, refused_tokens

__all__ = ["WallarooProcessor"]

GENERATION_MODES = ("text", "image", "auto")
# Released limits on what NaViT sees of an image, in pixels (shortest_edge and longest_edge are areas, as in Qwen2-VL).
EDITING_PIXEL_LIMITS = {"shortest_edge": 12544, "longest_edge": 188160}


class WallarooProcessor(ProcessorDoorsMixin, AutoPreparationMixin, ProcessorBase):
    r"""Prepares text, images to understand, images to edit and sizes for `WallarooForConditionalGeneration`.

    Args:
        image_processor (`WallarooImageProcessor`): both image streams.
        tokenizer (`PreTrainedTokenizerBase`): a Qwen2.5-VL tokenizer with Wallaroo's added tokens.
        chat_template (`str`, *optional*): Jinja template; Qwen2.5-VL's.
        buckets (`list[tuple[int, int]]`): the `(height, width)` sizes to choose from, in pixels.
        indicator_sizes (`list[int]`): edge lengths that have an `<indicator:N>` token.
        size_indicators (`bool`): whether prompts announce the size with indicator tokens (stages 3b and 4).
        line_breaks (`bool`): whether `<|end_of_line>|` stands between rows of codes (stages 3b and 4).
        prompt_templates (`dict`): task (`"generation"`, `"editing"`) → language (`"en"`, `"zh"`) → templates.
        image_token_size (`int`): edge of one code in pixels.
        pixel_limits (`dict`): task → `{"shortest_edge", "longest_edge"}`, the areas in pixels between which NaViT sees
            an image; tasks not named use the image processor's own `size`. Those of `"video"` count for each frame of one;
                default: those of `"understanding"`, else Qwen2.5-VL's.
        first_image_token_id (`int`, *optional*): id of image code 0 in sequences, the model's `vocab_size`; needed to split
            what `generate` returns into text and images. Loading and saving beside a model's `config.json` take it from
            there.
        has_editing (`bool`): whether the checkpoint can edit (stage 4). Without, images are only understood.
        known_words (`dict`, *optional*): the only words that the checkpoint learned, by language and kind, see
            [`wallaroo_hf.families.vocabulary`]; doors tell who asks for others.

    Raises:
        ValueError: if the tokenizer lacks tokens that the layout needs.
    """

    image_processor: WallarooImageProcessor
    kwargs_class = SeesVideos
    video_keywords = VIDEO_KEYWORDS

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
        first_image_token_id: int | None = None,
        has_editing: bool = True,
        known_words: KnownWords | None = None,
    ) -> None:
        if known_words is not None:  # settings of checkpoints that know any word do not mention it
            self.known_words = {language: dict(kinds) for language, kinds in known_words.items()}
        self.has_editing = has_editing
        self.first_image_token_id = first_image_token_id
        self.buckets = [(int(height), int(width)) for height, width in buckets]
        self.indicator_sizes = [int(size) for size in indicator_sizes]
        self.size_indicators = size_indicators
        self.line_breaks = line_breaks
        source = prompt_templates if prompt_templates is not None else prompt_texts.PROMPT_TEMPLATES
        self.prompt_templates = {
            task: {language: list(texts) for language, texts in by_language.items()}
            for task, by_language in source.items()
        }
        self.image_token_size = image_token_size
        limits = pixel_limits if pixel_limits is not None else {"editing": EDITING_PIXEL_LIMITS}
        self.pixel_limits = {task: dict(limit) for task, limit in limits.items()}
        self.image_token, self.video_token = IMAGE_PAD, VIDEO_PAD
        # what is generated continues the last token of each row; kept on saving, for pipelines read it off the tokenizer
        tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "left"
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

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """Saves the processor; beside a model's `config.json` with that model's beginning of image codes."""
        if os.path.isfile(os.path.join(save_directory, "config.json")):
            take_first_image_token_id(self, read_model_config(save_directory))
        return super().save_pretrained(save_directory, *args, **kwargs)

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
        mask_images: Any = None,
        published_eval: bool = False,
        source_guidance_scale: float | None = None,
        **kwargs: Any,
    ) -> WallarooBatchFeature:
        """Prepares a batch.

        Args:
            images: images to understand (text mode, one per `<|image_pad|>`), or one source per row to edit (image
                mode; `None` for rows that have none; a list of several for an edit of several, of which the last one is
                changed and says how large the result is). PIL images, paths, URLs, arrays; nested lists are accepted.
            text: prompts. In text mode a rendered chat; in image mode what to draw or how to edit, either plain or as a
                rendered chat, of which the last user turn is taken.
            videos: text mode: videos to understand, one per `<|video_pad|>`: files, arrays of frames, lists of frames; see
                [`wallaroo_hf.pictures.videos.flatten_videos`].
            audio: not understood.
            generation_mode: `"text"` to answer, `"image"` to draw, `"auto"` to let the model decide (rendered chats; each
                image can be understood and edited).
            height, width: size of the image to draw in pixels, one for all or one per row; multiples of
                `image_token_size`, honoured as given.
            aspect_ratio: width to height (`"16:9"` or `1.78`); picks a bucket. Default: the most square bucket, or for
                an edit the bucket nearest to its source.
            negative_prompt: the words that guidance steers away from, which the null prompt then holds; by
                default it holds none.
            prompt_template: index into the templates of the prompt's language, or a format string.
            layout: `"trained"`, or `"published_eval"` for the order of tokens in the released evaluation scripts.
            target_images: the images that the rows shall become (training), one per row: rows then end with the
                placeholders of the image and the end of the turn, and there is no null prompt. An image that is
                encoded already comes as its codes, integers `(rows, cols)`; the model puts them in the place of the
                placeholders. In auto mode one list per chat, for the images that the assistant shows in it.
            return_labels: also return `labels` (training): the assistant's tokens, -100 elsewhere.
            source_guidance: also prepare the third branch of two-scale editing guidance (source, but no instruction), for
                `generate(source_guidance_scale=...)`. The released recipe always drops both together, so it never
                trained this branch.
            source_fit: how a source whose shape differs from the size to draw is brought to it: `"crop"` (as in training)
                or `"pad"` (nothing is lost); see [`WallarooImageProcessor.to_vq_pixels`].
            mask_images: inpainting: what of each row's source (of several the last) is painted anew, pictures of the same
                sizes, one for all rows or one per row (None = all of it). White is painted, black keeps the source's codes,
                and a code that is not black all over is drawn; see [`wallaroo_hf.pictures.masks.open_mask`].
            published_eval: says `layout="published_eval"`; takes the model's setting of this name.
            source_guidance_scale: not None says `source_guidance=True`; takes the model's setting of this name.
            kwargs: of the tokenizer and the image processor; for videos `fps`, `num_frames`, `min_frames`, `max_frames`,
                `do_sample_frames`, `video_metadata` and what else [`wallaroo_hf.common.navit_videos.VideoSettings`] has,
                also as `videos_kwargs`.

        Returns:
            `WallarooBatchFeature` with `input_ids`, `attention_mask`, `mm_token_type_ids` (all `(B, T)`, int64) and
            where there are images `pixel_values` `(patches, C)` float32 and `image_grid_thw` `(images, 3)`; where there are
            videos `pixel_values_videos`, `video_grid_thw` and `second_per_grid_ts` `(videos,)` float32. In image
            mode also `target_grid_hw` `(B, 2)`, for edits `source_pixel_values` (list of `(3, H, W)` float32 in
            [-1, 1]), with masks `repaint_mask` (list of bool `(rows, cols)`, True where a code is drawn, or None), and the
            null prompt under the same names with the prefix `negative_` (with
            `source_guidance` also the branch without instruction, prefix `unprompted_`). In training
            `target_pixel_values` (list), `target_image_tokens` (list, int64 `(rows, cols)` or None) and `labels` `(B, T)`.

        Raises:
            ValueError: for sizes, images, prompts or arguments that cannot be drawn from; one sentence each.
        """
        if audio is not None:
            raise ValueError("Audio is not understood; leave `audio` out.")
        if generation_mode not in GENERATION_MODES:
            raise ValueError(f"`generation_mode` is {generation_mode!r}, but must be one of {GENERATION_MODES}.")
        layout = "published_eval" if published_eval else layout
        source_guidance = source_guidance or source_guidance_scale is not None
        merged = self._merged_kwargs(kwargs, ("height", "width", "aspect_ratio", "generation_mode"))
        texts = as_texts(text)
        refuse_halves(text=texts, negative_prompt=negative_prompt, prompt_template=prompt_template)
        size = {"height": height, "width": width, "aspect_ratio": aspect_ratio}
        wishes = {**size, "negative_prompt": negative_prompt}
        training = {"target_images": target_images, "return_labels": return_labels or None}
        check_mode_arguments(
            generation_mode,
            wishes,
            training,
            {
                "prompt_template": prompt_template != 0,
                "layout": layout != "trained",
                "source_guidance": source_guidance,
                "source_fit": source_fit != "crop",
                "mask_images": mask_images is not None,
            },
        )
        if generation_mode == "text":
            return self._understand(texts, images, videos, merged, return_labels)
        if videos is not None:
            raise ValueError("Nothing is drawn from a video; leave `videos` out, or pass generation_mode='text'.")
        if merged["text_kwargs"].get("truncation"):
            raise ValueError("`truncation` would cut what is drawn, or its prompt; shorten the prompt instead.")
        refused = refused_tokens(self.tokenizer)
        if generation_mode == "auto":
            for chat in texts:
                refuse_in_rendered(chat, refused)
        if generation_mode == "auto" and target_images is not None:
            return self._prepare_interleaved(texts, images, target_images, size, merged, return_labels)
        if generation_mode == "auto":
            return self._prepare_auto(texts, images, size, negative_prompt, merged)
        if layout not in prompt_texts.LAYOUTS:
            raise ValueError(f"`layout` is {layout!r}, but must be one of {prompt_texts.LAYOUTS}.")
        check_fit(source_fit)
        requests = read_requests(
            texts,
            images,
            {**wishes, "target_images": target_images, "mask_images": mask_images},
            self.buckets,
            refused,
            self.image_token_size,
        )
        if not self.has_editing and any(request.sources for request in requests):
            raise ValueError(
                "This checkpoint has no editing parts (it was trained up to stage 3), so it cannot draw from an image; "
                "convert or load a stage 4 checkpoint."
            )
        requests = [dataclasses.replace(request, fit=source_fit) for request in requests]
        for request in requests:
            grid.check_size(*request.size, self.image_token_size, plain_grid=not self.line_breaks)
        return self._draw(requests, prompt_template, layout, merged, return_labels, source_guidance)

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

        Raises:
            ValueError: for another `generation_mode`.
        """
        if generation_mode == "image":
            return self.image_processor.from_vq_pixels(generated_outputs)
        if generation_mode not in (None, "text"):
            raise ValueError(f"`generation_mode` is {generation_mode!r}, but must be 'text' or 'image'.")
        return self.post_process_image_text_to_text(
            generated_outputs, skip_special_tokens, clean_up_tokenization_spaces
        )

    def split_output(self, tokens: Any) -> list[str | np.ndarray]:
        """Splits what was generated for one row into its pieces of text and its images, in order.

        Args:
            tokens: new ids `(T,)` of one row of `generate`'s output.

        Returns:
            Strings, and int64 arrays `(rows, cols)` of codes for
            `model.vq_model.decode(torch.from_numpy(codes)[None])`.

        Raises:
            ValueError: if the processor does not know where image codes begin.
        """
        first = self.first_image_token_id
        if first is None or len(self.tokenizer) > first:
            known = "" if first is None else f" any more (its tokenizer has {len(self.tokenizer)} ids, {first} before)"
            raise ValueError(
                f"The processor does not know where image codes begin{known}; load it from a converted checkpoint, or set "
                "`processor.first_image_token_id = model.config.text_config.vocab_size`."
            )
        line_break = self.tokenizer.convert_tokens_to_ids(END_OF_LINE)
        ids = tokens.tolist() if hasattr(tokens, "tolist") else list(tokens)
        return split_pieces(ids, first, line_break, self._decode_text)

    @staticmethod
    def continue_chat(
        messages: Sequence[dict[str, Any]], pieces: Sequence[str | Image.Image], prompt: str
    ) -> list[dict[str, Any]]:
        """A chat with the answer just given and the user's next words; an image just drawn becomes their source.

        See [`wallaroo_hf.processing.next_turn.continue_chat`].
        """
        return continue_chat(messages, pieces, prompt)

    def _decode_text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    @property
    def model_input_names(self) -> list[str]:
        """Every tensor that this processor can emit."""
        names = ["input_ids", "attention_mask", "mm_token_type_ids", "pixel_values", "image_grid_thw"]
        names.append("source_pixel_values")
        branches = [f"{prefix}{name}" for prefix in ("", "negative_", "unprompted_") for name in names]
        videos = ["pixel_values_videos", "video_grid_thw", "second_per_grid_ts"]
        return [
            *branches,
            *videos,
            "target_grid_hw",
            "repaint_mask",
            "target_pixel_values",
            "target_image_tokens",
            "labels",
        ]
