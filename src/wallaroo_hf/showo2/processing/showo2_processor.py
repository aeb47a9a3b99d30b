"""`ShowO2Processor`: prompts, chats, pictures and videos to model inputs, and what was made back to pictures and text."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from ...common.chat_form import IMAGE_PAD, VIDEO_PAD
from ...common.chat_turns import with_next_turn
from ...common.folder_settings import read_settings
from ...common.processor_base import ProcessorBase
from ...common.row_values import as_texts
from ...families.vocabulary import KnownWords
from ...files.whole_text import refuse_halves
from ...pictures.fitting import check_fit
from ..showo2_abilities import RELEASED_SIZES, RELEASED_TASKS, showo2_abilities, token_size
from ..showo2_configuration import ShowO2Config
from ..showo2_tokens import CONFIG_TOKENS, SequenceIds, add_tokens, config_token_ids
from .showo2_batch import ShowO2BatchFeature
from .showo2_chat_template import CHAT_TEMPLATE
from .showo2_image_processor import ShowO2ImageProcessor
from .showo2_rows import FRAME_TOKENS, RowsMixin, SizeWishes
from .video_frames import flatten_videos, frame_indices

__all__ = ["ShowO2Processor"]

GENERATION_MODES = ("text", "image", "auto")
VIDEO_FRAMES = 32  # of the released script
_NAMED = (
    *("generation_mode", "height", "width", "aspect_ratio", "negative_prompt", "source_fit", "num_frames"),
    "published_eval",
)


class ShowO2Processor(RowsMixin, ProcessorBase):
    r"""Prepares text, pictures and videos to understand, pictures to edit and sizes for `ShowO2ForConditionalGeneration`.

    Args:
        image_processor (`ShowO2ImageProcessor`): brings pictures to a size.
        tokenizer (`PreTrainedTokenizerBase`): a Qwen2.5 tokenizer with Show-o2's added tokens, see
            [`wallaroo_hf.showo2.showo2_tokens.add_tokens`].
        chat_template (`str`, *optional*): Jinja template; default: the trained layout.
        drawing_sizes (`list[tuple[int, int]]`): the `(height, width)` sizes to choose from, in pixels.
        tasks (`list[str]`): what the weights were trained to do, by the words of [`wallaroo_hf.families.abilities`].
        image_token_size (`int`): edge of one image token in pixels; every size is a multiple of it.
        max_positions (`int`): of the language model. Loading beside a model's `config.json` takes these four from there.
        languages (`list[str]`): of prompts.
        known_words (`dict`, *optional*): the only words that the checkpoint learned, by language and kind, see
            [`wallaroo_hf.families.vocabulary`]; doors tell who asks for others.

    Raises:
        ValueError: if the tokenizer lacks tokens that the layout needs.
    """

    image_processor: ShowO2ImageProcessor

    def __init__(
        self,
        image_processor: ShowO2ImageProcessor,
        tokenizer: Any,
        chat_template: str | None = None,
        drawing_sizes: Sequence[Sequence[int]] = RELEASED_SIZES,
        tasks: Sequence[str] = RELEASED_TASKS,
        image_token_size: int = 16,
        max_positions: int = 32768,
        languages: Sequence[str] = ("en", "zh"),
        known_words: KnownWords | None = None,
    ) -> None:
        if known_words is not None:  # settings of checkpoints that know any word do not mention it
            self.known_words = {language: dict(kinds) for language, kinds in known_words.items()}
        self.drawing_sizes = [(int(height), int(width)) for height, width in drawing_sizes]
        self.tasks = list(tasks)
        self.image_token_size = image_token_size
        self.max_positions = max_positions
        self.languages = list(languages)
        self.image_token, self.video_token = IMAGE_PAD, VIDEO_PAD
        config_token_ids(tokenizer)  # all are there
        # what is generated continues the last token of each row; kept on saving, for pipelines read it off the tokenizer
        tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "left"
        super().__init__(image_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)

    @classmethod
    def of_config(
        cls,
        config: ShowO2Config,
        tokenizer: Any,
        sizes: Sequence[Sequence[int]] | None = None,
        known_words: KnownWords | None = None,
    ) -> "ShowO2Processor":
        """The processor of a model.

        Args:
            config: the model's.
            tokenizer: a Qwen2.5 tokenizer; Show-o2's tokens are added where they are not there.
            sizes: `(height, width)` in pixels of pictures to understand; default: the one that the table of positions of
                the semantic path was made for.
            known_words: see the class.

        Raises:
            ValueError: if the tokenizer lacks Qwen2.5's tokens, or has other ids than the configuration.
        """
        add_tokens(tokenizer)
        content = config.to_dict()
        edge = token_size(content)
        native = [(config.position_grid[0] * edge, config.position_grid[1] * edge)]
        image_processor = ShowO2ImageProcessor(sizes=[tuple(size) for size in sizes or native])
        processor = cls(image_processor, tokenizer, known_words=known_words)
        processor._take_over(content)
        processor._check_agreement(config, "the configuration given")
        return processor

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> "ShowO2Processor":
        """Loads a processor; beside a model's `config.json` it has that model's tasks, sizes and positions.

        Raises:
            ValueError: if `config.json` there has other token ids than the tokenizer.
        """
        processor = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        content = read_settings(pretrained_model_name_or_path, "config.json", kwargs)
        if content.get("model_type") == ShowO2Config.model_type:
            processor._take_over(content)
            processor._check_agreement(
                ShowO2Config.from_dict(content), f"config.json of the checkpoint at {pretrained_model_name_or_path}"
            )
        return processor

    def _take_over(self, content: Mapping[str, Any]) -> None:
        """What a model's configuration says of tasks, sizes and positions."""
        abilities = showo2_abilities(content, {}, {})
        self.drawing_sizes, self.tasks = list(abilities.sizes), list(content.get("tasks") or RELEASED_TASKS)
        self.image_token_size, self.max_positions = abilities.size_multiple, abilities.max_positions

    def _check_agreement(self, config: ShowO2Config, where: str) -> None:
        ours, theirs = self.ids, SequenceIds.of_config(config)
        for name, own, other in zip(ours._fields, ours, theirs, strict=True):
            if own != other:
                raise ValueError(
                    f"`{name}` is {other} in {where}, but the tokenizer has {CONFIG_TOKENS[name]} at {own}; convert or "
                    "save it again so that both are of one checkpoint."
                )
        if len(self.tokenizer) > config.text_config.vocab_size:
            raise ValueError(
                f"The tokenizer has {len(self.tokenizer)} ids, but by {where} the model's vocabulary is "
                f"{config.text_config.vocab_size}; call `model.resize_token_embeddings({len(self.tokenizer)})` and save "
                "model and processor again."
            )

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
        num_frames: int | None = None,
        do_sample_frames: bool = True,
        published_eval: bool = False,
        **kwargs: Any,
    ) -> ShowO2BatchFeature:
        """Prepares a batch.

        Args:
            images: pictures to understand (text and auto mode, one per `<|image_pad|>`), or one source per row to edit
                (image mode; `None` for rows that have none). PIL images, paths, URLs, arrays; nested lists are accepted.
            text: prompts. In text mode rendered chats; in image mode what to draw, plain or as a rendered chat of one
                turn; in auto mode rendered chats, or the plain text of mixed generation, which is put behind its flag.
            videos: videos to understand, one per `<|video_pad|>`; see
                [`wallaroo_hf.showo2.processing.video_frames.flatten_videos`].
            audio: not understood.
            generation_mode: `"text"` to answer, `"image"` to draw, `"auto"` to let the model decide.
            height, width: size of the picture to draw in pixels, one for all or one per row; multiples of
                `image_token_size`, honoured as given.
            aspect_ratio: width to height (`"16:9"` or `1.78`); picks a listed size. Default: the most square one, or for an
                edit the one nearest to its source.
            negative_prompt: the words that guidance steers away from, which the null prompt then holds; by default it holds
                none.
            source_fit: how a source whose shape differs from the size to draw is brought to it: `"crop"` or `"pad"`.
            num_frames: how many frames of each video are seen, uniformly spaced; default: 32.
            do_sample_frames: transformers' word; frames are always sampled.
            published_eval: sequences of the authors' scripts: prompts to draw from are cut to what their context leaves;
                questions have no line break behind an image and do not end, and pictures are cropped.

        Returns:
            `ShowO2BatchFeature` with `input_ids` and `attention_mask` `(B, T)`, int64, and where there are pictures
            `pixel_values`: a list in the order of blocks, row by row, of float32 `(3, H, W)` in [-1, 1], or `(F, 3, H, W)`
            for a video. In image and auto mode also `negative_input_ids` and `negative_attention_mask` `(B, T')`, the null
            prompts, and `image_size` `(B, 2)`, int64, `(height, width)` in pixels. Rows to draw from end with the token
            that opens a picture.

        Raises:
            ValueError: for sizes, pictures, prompts or arguments that cannot be used; one sentence each.
        """
        if audio is not None:
            raise ValueError("Audio is not understood; leave `audio` out.")
        if generation_mode not in GENERATION_MODES:
            raise ValueError(f"`generation_mode` is {generation_mode!r}, but must be one of {GENERATION_MODES}.")
        merged = self._merged_kwargs(kwargs, _NAMED)
        texts = as_texts(text)
        refuse_halves(text=texts, negative_prompt=negative_prompt)
        wishes = SizeWishes(height, width, aspect_ratio, negative_prompt)
        self._check_mode(generation_mode, wishes, source_fit, videos)
        if not isinstance(published_eval, bool):
            raise ValueError(f"`published_eval` is a {type(published_eval).__name__}, but must be True or False.")
        if not do_sample_frames:
            raise ValueError("Frames are always sampled; for all of a video pass `num_frames` with their number.")
        frames = VIDEO_FRAMES if num_frames is None else num_frames
        if not isinstance(frames, int) or isinstance(frames, bool) or frames < 1:
            raise ValueError(f"`num_frames` is {num_frames!r}, but must be a whole number of at least 1.")
        if merged["text_kwargs"].get("truncation") and generation_mode != "text":
            raise ValueError("`truncation` would cut what a picture is drawn from; shorten the prompt instead.")
        if generation_mode == "text":
            return self._answer(texts, images, videos, frames, published_eval, merged)
        if generation_mode == "auto":
            return self._answer_or_draw(texts, images, videos, frames, wishes, merged)
        return self._draw(texts, images, wishes, source_fit, published_eval, merged)

    def _check_mode(self, generation_mode: str, wishes: SizeWishes, source_fit: str, videos: Any) -> None:
        """Refuses arguments that would be ignored in a mode."""
        check_fit(source_fit)
        given = [name for name, value in vars(wishes).items() if value is not None]
        crops = source_fit == "crop"
        if generation_mode == "text" and (given or not crops):
            raise ValueError(f"`{[*given, 'source_fit'][0]}` is for drawing; pass generation_mode='image' with it.")
        if generation_mode == "auto" and not crops:
            raise ValueError(
                "`source_fit` has no effect where the model decides; pass generation_mode='image' with it."
            )
        if generation_mode == "image" and videos is not None:
            raise ValueError("Nothing is drawn from a video; leave `videos` out, or pass generation_mode='text'.")

    # ---------------------------------------------------------------------------------------------- what doors ask

    def collate(self, rows: Sequence[ShowO2BatchFeature]) -> ShowO2BatchFeature:
        """Rows that were prepared with `return_tensors="pt"` in one mode as one batch, padded on the left."""
        return rows[0] if len(rows) == 1 else ShowO2BatchFeature.join(rows, self.tokenizer.pad_token_id)

    def to_pixels(self, image: Image.Image, height: int, width: int) -> torch.Tensor:
        """A picture as the image codec takes it: `(3, height, width)` float32 in [-1, 1], cropped as in training."""
        return torch.from_numpy(self.image_processor.to_pixels(image, height, width))

    def pictures(self, pixels: Sequence[torch.Tensor]) -> list[Image.Image]:
        """Pixels `(3, H, W)` as pictures; see [`ShowO2ImageProcessor.to_pictures`]."""
        return self.image_processor.to_pictures(pixels)

    def continue_chat(
        self, messages: Sequence[dict[str, Any]], pieces: Sequence[str | Image.Image], prompt: str
    ) -> list[dict[str, Any]]:
        """A chat with the answer just given and the user's next words; pictures stay where they were drawn.

        Args:
            messages: the chat so far, ending with the user's turn.
            pieces: the answer: strings and pictures in order.
            prompt: what the user says next.

        Raises:
            ValueError: if the chat does not end with the user's turn.
        """
        answered = [
            {"type": "text", "text": piece} if isinstance(piece, str) else {"type": "image", "image": piece}
            for piece in pieces
        ]
        return with_next_turn(messages, answered, [{"type": "text", "text": prompt}])

    def choose_frames(self, num_frames: int, rate: float | None, max_tokens: int) -> list[int]:
        """Which frames of a video are seen, spaced uniformly: as many as in the released script, however many there are.

        Args:
            num_frames: how many it has.
            rate, max_tokens: not asked for.
        """
        return frame_indices(num_frames, VIDEO_FRAMES)

    def count_tokens(self, messages: Sequence[dict[str, Any]], may_draw: bool = False) -> int:
        """How many tokens a chat has at least, its pictures included, told without preparing them.

        Args:
            messages: the chat; pictures stand in it as PIL images under `image`.
            may_draw: whether it is meant for `generation_mode="auto"`.
        """
        text = self.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
        parts = [part for message in messages for part in message["content"] if isinstance(part, Mapping)]
        # the placeholder of each is among the tokens of the text, and counts for the time
        sizes = self.image_processor.sizes
        pictures = [
            self._one_shown(part["image"], None, sizes, may_draw).num_tokens for part in parts if "image" in part
        ]
        videos = [
            len(flatten_videos(part["video"])) * VIDEO_FRAMES * FRAME_TOKENS for part in parts if "video" in part
        ]
        return len(self.tokenizer(text)["input_ids"]) + sum(pictures) + sum(videos)

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

        Returns:
            A list of `PIL.Image.Image`, or of `str`.

        Raises:
            ValueError: for another `generation_mode`.
        """
        if generation_mode == "image":
            return self.image_processor.to_pictures(generated_outputs)
        if generation_mode not in (None, "text"):
            raise ValueError(f"`generation_mode` is {generation_mode!r}, but must be 'text' or 'image'.")
        return self.post_process_image_text_to_text(
            generated_outputs, skip_special_tokens, clean_up_tokenization_spaces
        )

    @property
    def model_input_names(self) -> list[str]:
        """Every tensor that this processor can emit."""
        rows = [f"{prefix}{name}" for prefix in ("", "negative_") for name in ("input_ids", "attention_mask")]
        return [*rows, "pixel_values", "image_size"]
