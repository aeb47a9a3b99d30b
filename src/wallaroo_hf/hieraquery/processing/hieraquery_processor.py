"""`HieraQueryProcessor`: prompts, chats and pictures to model inputs, and what was made back to pictures and text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoTokenizer

from ...common.chat_form import IM_START, IMAGE_PAD, VIDEO_PAD
from ...common.chat_turns import with_next_turn
from ...common.folder_settings import read_settings
from ...common.navit_images import count_vision_tokens
from ...common.navit_videos import VIDEO_KEYWORDS, SeesVideos, VideoSettings, choose_within, count_video_tokens
from ...common.processor_base import ProcessorBase
from ...common.row_values import as_texts
from ...families.vocabulary import KnownWords
from ...files.whole_text import refuse_halves
from ...pictures.fitting import check_fit
from ..hieraquery_abilities import TASKS, hieraquery_abilities
from ..hieraquery_configuration import HieraQueryConfig
from .hieraquery_batch import HieraQueryBatchFeature
from .hieraquery_image_processor import HieraQueryImageProcessor
from .hieraquery_rows import HieraQueryRowsMixin, SizeWishes

__all__ = ["HieraQueryProcessor"]

GENERATION_MODES = ("text", "image", "auto")
_NAMED = ("generation_mode", "height", "width", "aspect_ratio", "negative_prompt", "source_fit", "mask_images")


class HieraQueryProcessor(HieraQueryRowsMixin, ProcessorBase):
    r"""Prepares text and pictures to understand, pictures to edit and sizes for `HieraQueryForConditionalGeneration`.

    Nothing is added to the tokenizer: queries are no tokens. In text mode everything is as for the Qwen2.5-VL model that
    the checkpoint was built on.

    Args:
        image_processor (`HieraQueryImageProcessor`): pictures for the language model and for the image codec.
        tokenizer (`PreTrainedTokenizerBase`): any Qwen2.5-VL tokenizer.
        chat_template (`str`, *optional*): Jinja template; default: the tokenizer's.
        drawing_sizes (`list[tuple[int, int]]`): the `(height, width)` sizes to choose from, in pixels.
        tasks (`list[str]`): what the weights were trained to do, by the words of [`wallaroo_hf.families.abilities`].
        size_multiple (`int`): what every edge is a multiple of, in pixels.
        max_positions (`int`): of the language model.
        query_positions (`int`): those among them that queries take.
        longest_edge (`int`, *optional*): in pixels, of what is drawn. Loading beside a model's `config.json` takes these
            six from there.
        languages (`list[str]`): of prompts.
        known_words (`dict`, *optional*): the only words that the checkpoint learned, by language and kind, see
            [`wallaroo_hf.families.vocabulary`]; doors tell who asks for others.

    Raises:
        ValueError: if the tokenizer lacks Qwen2.5-VL's tokens, or a chat template.
    """

    image_processor: HieraQueryImageProcessor
    kwargs_class = SeesVideos
    video_keywords = VIDEO_KEYWORDS

    def __init__(
        self,
        image_processor: HieraQueryImageProcessor,
        tokenizer: Any,
        chat_template: str | None = None,
        drawing_sizes: Sequence[Sequence[int]] = ((512, 512),),
        tasks: Sequence[str] = TASKS,
        size_multiple: int = 32,
        max_positions: int = 128000,
        query_positions: int = 342,
        longest_edge: int | None = None,
        languages: Sequence[str] = ("en", "zh"),
        known_words: KnownWords | None = None,
    ) -> None:
        if known_words is not None:  # settings of checkpoints that know any word do not mention it
            self.known_words = {language: dict(kinds) for language, kinds in known_words.items()}
        self.drawing_sizes = [(int(height), int(width)) for height, width in drawing_sizes]
        self.tasks = list(tasks)
        self.size_multiple, self.max_positions, self.query_positions = size_multiple, max_positions, query_positions
        self.longest_edge = longest_edge
        self.languages = list(languages)
        self.image_token, self.video_token = IMAGE_PAD, VIDEO_PAD
        missing = [
            token
            for token in (IM_START, IMAGE_PAD)
            if tokenizer.convert_tokens_to_ids(token) in (None, tokenizer.unk_token_id)
        ]
        if missing:
            raise ValueError(f"The tokenizer lacks the tokens {', '.join(missing)}; give that of a Qwen2.5-VL model.")
        template = chat_template or tokenizer.chat_template
        if not template:
            raise ValueError(
                "The tokenizer has no chat template; give that of a Qwen2.5-VL model, or `chat_template`."
            )
        # what is generated continues the last token of each row; kept on saving, for pipelines read it off the tokenizer
        tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "left"
        super().__init__(image_processor, tokenizer, chat_template=template)

    @classmethod
    def of_config(
        cls,
        config: HieraQueryConfig,
        image_processor: HieraQueryImageProcessor,
        tokenizer: Any,
        chat_template: str | None = None,
        known_words: KnownWords | None = None,
    ) -> "HieraQueryProcessor":
        """The processor of a model.

        Args:
            config: the model's.
            image_processor, tokenizer, chat_template: its language model's.
            known_words: see the class.

        Raises:
            ValueError: if the tokenizer does not belong to the model.
        """
        processor = cls(image_processor, tokenizer, chat_template, known_words=known_words)
        processor._take_over(config.to_dict(), "hand")
        return processor

    @classmethod
    def of_language_model(
        cls, folder: str | Path, config: HieraQueryConfig, known_words: KnownWords | None = None
    ) -> "HieraQueryProcessor":
        """The processor of a model that is built on a Qwen2.5-VL.

        Args:
            folder: of the Qwen2.5-VL, or its Hub id: tokenizer, chat template and image processor are read.
            config: the new model's.
            known_words: see the class.

        Raises:
            OSError: if there is no such thing.
            ValueError: if the tokenizer does not belong to the model.
        """
        tokenizer = AutoTokenizer.from_pretrained(folder)
        template = tokenizer.chat_template or _chat_template(folder)
        image_processor = HieraQueryImageProcessor.from_pretrained(folder)
        return cls.of_config(config, image_processor, tokenizer, template, known_words)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> "HieraQueryProcessor":
        """Loads a processor; beside a model's `config.json` it has that model's tasks, sizes and positions.

        Raises:
            ValueError: if `config.json` there has another id for pictures than the tokenizer.
        """
        processor = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        content = read_settings(pretrained_model_name_or_path, "config.json", kwargs)
        if content.get("model_type") == HieraQueryConfig.model_type:
            processor._take_over(content, str(pretrained_model_name_or_path))
        return processor

    def _take_over(self, content: Mapping[str, Any], where: str) -> None:
        """What a model's configuration says of tasks, sizes and positions."""
        ids = self.tokenizer.convert_tokens_to_ids(IMAGE_PAD), (content.get("mllm_config") or {}).get("image_token_id")
        if ids[1] is not None and ids[0] != ids[1]:
            raise ValueError(
                f"`image_token_id` is {ids[1]} in the configuration at {where}, but the tokenizer has {IMAGE_PAD} at "
                f"{ids[0]}; build or save it again so that both are of one checkpoint."
            )
        abilities = hieraquery_abilities(content, {}, {})
        self.drawing_sizes, self.tasks = list(abilities.sizes), list(content.get("tasks") or TASKS)
        self.size_multiple, self.max_positions = abilities.size_multiple, abilities.max_positions
        self.query_positions, self.longest_edge = abilities.query_positions, abilities.longest_edge

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
        source_fit: str = "crop",
        mask_images: Any = None,
        **kwargs: Any,
    ) -> HieraQueryBatchFeature:
        """Prepares a batch.

        Args:
            images: pictures to understand (text mode, one per `<|image_pad|>`), or one source per row to edit (image mode;
                `None` for rows that have none). PIL images, paths, URLs, arrays; nested lists are accepted.
            text: prompts. In text mode rendered chats; in image mode what to draw, plain or as a rendered chat of one
                turn.
            videos: text mode: videos to understand, one per `<|video_pad|>`: files, arrays of frames, lists of frames; see
                [`wallaroo_hf.pictures.videos.flatten_videos`].
            audio: not understood.
            generation_mode: `"text"` to answer, `"image"` to draw. `"auto"`, in which other families decide by themselves,
                is refused.
            height, width: size of the picture to draw in pixels, one for all or one per row; multiples of `size_multiple`,
                honoured as given.
            aspect_ratio: width to height (`"16:9"` or `1.78`); picks a listed size. Default: the checkpoint's own, or for
                an edit the one nearest to its source.
            negative_prompt: refused: what guidance steers away from is no condition at all.
            source_fit: how a source whose shape differs from the size to draw is brought to it before it is seen: `"crop"`
                or `"pad"`.
            mask_images: inpainting: what of each row's source is painted anew, pictures of the sources' sizes, one for all
                rows or one per row (None = all of it): white is painted, black stays, by cells of `size_multiple` pixels;
                see [`wallaroo_hf.pictures.masks.open_mask`].
            kwargs: of the tokenizer and the image processor; for videos those of
                [`wallaroo_hf.common.navit_videos.VideoSettings`], also as `videos_kwargs`.

        Returns:
            `HieraQueryBatchFeature` with `input_ids`, `attention_mask` and `mm_token_type_ids` `(B, T)`, int64, and where
            there are pictures `pixel_values` `(patches, C)` float32 and `image_grid_thw` `(images, 3)`; where there are
            videos `pixel_values_videos`, `video_grid_thw` and `second_per_grid_ts` `(videos,)` float32; in image mode also
            `image_size` `(B, 2)`, int64, `(height, width)` in pixels, and with masks `repaint_mask` (list of bool
            `(rows, cols)`, True where a cell is painted, or None) and `source_pixel_values` (list of `(3, H, W)` float32 in
            [-1, 1], or None).

        Raises:
            ValueError: for sizes, pictures, prompts or arguments that cannot be used; one sentence each.
        """
        if audio is not None:
            raise ValueError("Audio is not understood; leave `audio` out.")
        if generation_mode not in GENERATION_MODES:
            raise ValueError(f"`generation_mode` is {generation_mode!r}, but must be one of {GENERATION_MODES}.")
        if generation_mode == "auto":
            self.abilities.check_drawing_in_chats()
        merged = self._merged_kwargs(kwargs, _NAMED)
        texts = as_texts(text)
        refuse_halves(text=texts, negative_prompt=negative_prompt)
        check_fit(source_fit)
        wishes = SizeWishes(height, width, aspect_ratio)
        if generation_mode == "text":
            given = [name for name, value in vars(wishes).items() if value is not None]
            given += [] if negative_prompt is None else ["negative_prompt"]
            given += [] if source_fit == "crop" else ["source_fit"]
            given += [] if mask_images is None else ["mask_images"]
            if given:
                raise ValueError(f"`{given[0]}` is for drawing; pass generation_mode='image' with it.")
            return self._answer(texts, images, videos, merged)
        if videos is not None:
            raise ValueError("Nothing is drawn from a video; leave `videos` out, or pass generation_mode='text'.")
        if negative_prompt is not None and negative_prompt != "":
            raise ValueError(
                "A HieraQuery model takes no negative prompt (guidance steers away from no condition at all); leave "
                "`negative_prompt` out."
            )
        return self._draw(texts, images, mask_images, wishes, source_fit, merged)

    # ---------------------------------------------------------------------------------------------- what doors ask

    def collate(self, rows: Sequence[HieraQueryBatchFeature]) -> HieraQueryBatchFeature:
        """Rows that were prepared with `return_tensors="pt"` in one mode as one batch, padded on the left."""
        return rows[0] if len(rows) == 1 else HieraQueryBatchFeature.join(rows, self.tokenizer.pad_token_id)

    def to_pixels(self, image: Image.Image, height: int, width: int) -> torch.Tensor:
        """A picture as the image codec takes it: `(3, height, width)` float32 in [-1, 1], cropped as in training."""
        return torch.from_numpy(self.image_processor.to_pixels(image, height, width))

    def pictures(self, pixels: Sequence[torch.Tensor]) -> list[Image.Image]:
        """Pixels `(3, H, W)` as pictures; see [`HieraQueryImageProcessor.to_pictures`]."""
        return self.image_processor.to_pictures(pixels)

    def side_by_side(self, pixels: Sequence[torch.Tensor]) -> Image.Image:
        """Pictures `(3, h, w)` of several scales of one drawing as one, coarse to fine, each as high as the highest.

        Args:
            pixels: from `model.decode_scales`.
        """
        pictures = self.pictures(pixels)
        height = max(picture.height for picture in pictures)
        widths = [round(picture.width * height / picture.height) for picture in pictures]
        sheet = Image.new("RGB", (sum(widths), height))
        for place, (picture, width) in enumerate(zip(pictures, widths, strict=True)):
            enlarged = picture.resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (sum(widths[:place]), 0))
        return sheet

    def continue_chat(
        self, messages: Sequence[dict[str, Any]], pieces: Sequence[Any], prompt: str
    ) -> list[dict[str, Any]]:
        """A chat with the answer just given and the user's next words.

        Args:
            messages: the chat so far, ending with the user's turn.
            pieces: the answer: strings.
            prompt: what the user says next.

        Raises:
            ValueError: if the chat does not end with the user's turn.
        """
        answered = [{"type": "text", "text": "".join(piece for piece in pieces if isinstance(piece, str))}]
        return with_next_turn(messages, answered, [{"type": "text", "text": prompt}])

    def choose_frames(self, num_frames: int, rate: float | None, max_tokens: int) -> list[int]:
        """See [`wallaroo_hf.common.navit_videos.choose_within`]."""
        return choose_within(num_frames, rate, max_tokens, self.image_processor)

    def count_tokens(self, messages: Sequence[dict[str, Any]], may_draw: bool = False) -> int:
        """How many tokens a chat has at least, its pictures included, told without preparing them.

        Args:
            messages: the chat; pictures stand in it as PIL images under `image`.
            may_draw: no chat of this family does.
        """
        text = self.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
        parts = [part for message in messages for part in message["content"] if isinstance(part, Mapping)]
        images = [part["image"] for part in parts if "image" in part]
        videos = [part["video"] for part in parts if "video" in part]
        # the placeholder of each is among the tokens of the text
        seen = sum(count_vision_tokens(self.image_processor, one.height, one.width, {}) - 1 for one in images)
        seen += sum(count_video_tokens(self.image_processor, one, VideoSettings()) - 1 for one in videos)
        return len(self.tokenizer(text)["input_ids"]) + seen

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
            generated_outputs: in image mode pixels `(3, H, W)` in [-1, 1]; in text mode token ids `(B, T)`.
            skip_special_tokens: text mode: leave out special tokens.
            generation_mode: `"image"` or `"text"` (default).
            clean_up_tokenization_spaces: text mode: as the tokenizer's.

        Raises:
            ValueError: for another `generation_mode`.
        """
        if generation_mode == "image":
            return self.pictures(generated_outputs)
        if generation_mode not in (None, "text"):
            raise ValueError(f"`generation_mode` is {generation_mode!r}, but must be 'text' or 'image'.")
        return self.post_process_image_text_to_text(
            generated_outputs, skip_special_tokens, clean_up_tokenization_spaces
        )

    @property
    def model_input_names(self) -> list[str]:
        """Every tensor that this processor can emit."""
        rows = ["input_ids", "attention_mask", "mm_token_type_ids"]
        videos = ["pixel_values_videos", "video_grid_thw", "second_per_grid_ts"]
        return [*rows, "pixel_values", "image_grid_thw", *videos, "image_size", *HieraQueryBatchFeature.row_keys]


def _chat_template(folder: str | Path) -> str | None:
    """That of a folder whose tokenizer has none in itself."""
    content = read_settings(folder, "chat_template.json", {}) or read_settings(folder, "processor_config.json", {})
    return content.get("chat_template")
