"""The steps from chats, prompts and pictures to rows of tensors; [`ShowO2Processor`] inherits them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ...common.chat_form import (
    IM_END,
    IM_START,
    IMAGE_BLOCK,
    IMAGE_PAD,
    SYSTEM_PROMPT,
    VIDEO_BLOCK,
    VIDEO_PAD,
    VISION_END,
    split_chat,
)
from ...common.padded_rows import TokenRow, pad_rows, refuse_cut_images, tokenizer_options
from ...common.row_values import as_rows, images_per_row
from ...common.special_words import marked_tokens, refuse_in_rendered, refuse_special_tokens
from ...families.abilities import EDITING, GENERATION
from ...pictures.opening import flatten_images
from ..sequences import FLAG, REDUCED_GRID, cut_prompt, drawing_prompt, mixed_prompt
from ..showo2_abilities import ShowO2Abilities
from ..showo2_tokens import CONFIG_TOKENS, SequenceIds
from .showo2_batch import ShowO2BatchFeature
from .showo2_image_processor import ShowO2ImageProcessor
from .video_frames import flatten_videos, read_frames

FRAME_TOKENS = REDUCED_GRID[0] * REDUCED_GRID[1]
_GENERATION_PROMPT = f"{IM_START}assistant\n"
_DEFAULT_SYSTEM = f"{IM_START}system\n{SYSTEM_PROMPT}{IM_END}\n"


@dataclasses.dataclass(frozen=True)
class Shown:
    """A picture or a video in a row.

    Attributes:
        source: the picture, or a video as it was given.
        size: `(height, width)` in pixels that it is brought to.
        frames: how many of a video; None = it is a picture.
        num_tokens: that it becomes, without the time.
    """

    source: Any
    size: tuple[int, int]
    frames: int | None
    num_tokens: int


@dataclasses.dataclass(frozen=True)
class SizeWishes:
    """What is asked of the pictures that rows become: each one value for all rows, or a list of one per row."""

    height: Any
    width: Any
    aspect_ratio: Any
    negative_prompt: Any


class RowsMixin:
    """Needs the settings of [`ShowO2Processor`]; what they mean is said there."""

    tokenizer: Any
    image_processor: ShowO2ImageProcessor
    drawing_sizes: list[tuple[int, int]]
    tasks: list[str]
    image_token_size: int
    max_positions: int
    languages: list[str]

    @property
    def abilities(self) -> ShowO2Abilities:
        """What sizes, prompts and tasks are checked by; its settings are those of a loaded checkpoint, not here."""
        return ShowO2Abilities(
            family="Show-o2",
            tasks=tuple(self.tasks),
            sizes=tuple((int(height), int(width)) for height, width in self.drawing_sizes),
            size_multiple=self.image_token_size,
            any_size=True,
            max_positions=self.max_positions,
            languages=tuple(self.languages),
            settings=(),
            special_tokens=self.special_words,
        )

    @property
    def ids(self) -> SequenceIds:
        """The ids that sequences are made of."""
        return SequenceIds.of_tokenizer(self.tokenizer)

    @property
    def special_words(self) -> tuple[str, ...]:
        """The tokens that users' words must not spell."""
        return marked_tokens(self.tokenizer, lambda token: token in CONFIG_TOKENS.values())

    # ------------------------------------------------------------------------------------------------- chats, to answer

    def _answer(
        self,
        texts: list[str],
        images: Any,
        videos: Any,
        num_frames: int,
        published_eval: bool,
        merged: dict[str, dict[str, Any]],
    ) -> ShowO2BatchFeature:
        """Rows whose text goes on."""
        sizes, fit = self.image_processor.read_settings(merged["images_kwargs"])
        shown = self._shown(texts, images, videos, num_frames, sizes, keeps_drawn=False)
        written = [_published(text) if published_eval else [text] for text in texts]
        fit = "crop" if published_eval else fit
        return self._batch(self._seen(written, shown, fit, merged), merged)

    def _answer_or_draw(
        self,
        texts: list[str],
        images: Any,
        videos: Any,
        num_frames: int,
        wishes: SizeWishes,
        merged: dict[str, dict[str, Any]],
    ) -> ShowO2BatchFeature:
        """Rows whose text goes on and may become pictures: chats, or the plain text of mixed generation."""
        self.abilities.check_task(GENERATION)
        for text in texts:
            if IM_START in text:
                refuse_in_rendered(text, self.special_words, (IMAGE_BLOCK, VIDEO_BLOCK))
            else:
                words = text.replace(IMAGE_BLOCK, "\n").replace(VIDEO_BLOCK, "\n")
                refuse_special_tokens("prompt", words, self.special_words)
        seen_sizes, fit = self.image_processor.read_settings(merged["images_kwargs"])
        shown = self._shown(texts, images, videos, num_frames, seen_sizes, keeps_drawn=True)
        last = [next((one.source for one in reversed(row) if one.frames is None), None) for row in shown]
        sizes = self._sizes(wishes, last if self.abilities.edits else [None] * len(texts))
        written = [[text if IM_START in text else f"{IM_START}{_flagged(text)}"] for text in texts]
        data = self._seen(written, shown, fit, merged)
        data |= self._null_rows(wishes.negative_prompt, len(texts), merged)
        data["image_size"] = np.array(sizes, dtype=np.int64)
        return self._batch(data, merged)

    def _shown(
        self,
        texts: list[str],
        images: Any,
        videos: Any,
        num_frames: int,
        sizes: Sequence[tuple[int, int]],
        keeps_drawn: bool,
    ) -> list[list[Shown]]:
        """What each row shows, in the order of its placeholders.

        Args:
            sizes: those that pictures are brought to; videos to the first.
            keeps_drawn: whether a picture of a listed size to draw keeps it, as one that was drawn before.
        """
        for text in texts:
            for what, block, pad in (("image", IMAGE_BLOCK, IMAGE_PAD), ("video", VIDEO_BLOCK, VIDEO_PAD)):
                if text.count(block) != text.count(pad):
                    raise ValueError(
                        f"A prompt has {pad} without the tokens around it; write {block} for each {what}, as "
                        "`processor.apply_chat_template` does."
                    )
        pictures = _per_row(images, flatten_images, [text.count(IMAGE_PAD) for text in texts], "image")
        clips = _per_row(videos, flatten_videos, [text.count(VIDEO_PAD) for text in texts], "video")
        rows = []
        for text, own_pictures, own_clips in zip(texts, pictures, clips, strict=True):
            queues = {IMAGE_PAD: iter(own_pictures), VIDEO_PAD: iter(own_clips)}
            rows.append(
                [
                    self._one_shown(next(queues[pad]), None if pad == IMAGE_PAD else num_frames, sizes, keeps_drawn)
                    for pad in _placeholders(text)
                ]
            )
        return rows

    def _one_shown(
        self, source: Any, frames: int | None, sizes: Sequence[tuple[int, int]], keeps_drawn: bool
    ) -> Shown:
        if frames is not None:
            return Shown(source, sizes[0], frames, frames * FRAME_TOKENS)
        size = source.height, source.width
        if not (keeps_drawn and size in self.abilities.sizes):
            size = self.image_processor.pick_size(source, sizes)
        return Shown(source, size, None, self.abilities.image_tokens(*size))

    def _seen(
        self, written: list[list[str]], shown: list[list[Shown]], fit: str, merged: dict[str, dict[str, Any]]
    ) -> dict[str, Any]:
        """Padded rows and the pixels of what they show.

        Args:
            written: of each row, texts that are tokenized one by one.
            shown: of each row.
            fit: how pictures are brought to their size.
        """
        rows = []
        placeholders = (self.ids.image_token_id, self.ids.video_token_id)
        for number, (texts, own) in enumerate(zip(written, shown, strict=True)):
            queue = iter(own)
            ids: list[int] = []
            tokens = self._tokenize(texts, merged["text_kwargs"])
            left = sum(token in placeholders for token in tokens)
            refuse_cut_images(number, left, len(own), merged["text_kwargs"].get("max_length"))
            self._check_length(len(tokens) + sum(one.num_tokens for one in own), own)
            for token in tokens:
                is_shown = token in placeholders
                ids += [self.ids.image_token_id] * (next(queue).num_tokens + 1) if is_shown else [token]
            rows.append({"input_ids": ids})
        data: dict[str, Any] = pad_rows(self.tokenizer.pad_token_id, rows, merged["text_kwargs"])
        pixels = [self._pixels(one, fit) for own in shown for one in own]
        return data | ({"pixel_values": pixels} if pixels else {})

    def _pixels(self, shown: Shown, fit: str) -> np.ndarray:
        """`(3, H, W)`, or `(F, 3, H, W)` of a video, whose frames are never cut."""
        if shown.frames is None:
            return self.image_processor.to_pixels(shown.source, *shown.size, fit)
        frames = read_frames(shown.source, shown.frames)
        return np.stack([self.image_processor.to_pixels(frame, *shown.size, "pad") for frame in frames])

    def _check_length(self, length: int, shown: Sequence[Shown]) -> None:
        if length <= self.abilities.max_positions:
            return
        videos = [one for one in shown if one.frames is not None]
        advice = "shorten it or show fewer pictures"
        if videos:
            advice = f"its video alone takes {videos[0].num_tokens + 1:,}, so ask for fewer frames by `num_frames`"
        raise ValueError(
            f"A chat has {length:,} positions, but the model has {self.abilities.max_positions:,}; {advice}."
        )

    # ------------------------------------------------------------------------------------------------ prompts, to draw

    def _draw(
        self,
        texts: list[str],
        images: Any,
        wishes: SizeWishes,
        source_fit: str,
        published_eval: bool,
        merged: dict[str, dict[str, Any]],
    ) -> ShowO2BatchFeature:
        """Rows that end where a picture begins."""
        self.image_processor.read_settings(merged["images_kwargs"])
        self.abilities.check_task(GENERATION)
        if merged["text_kwargs"].get("padding_side", "left") != "left":
            raise ValueError("Rows to draw from are continued at their end, so `padding_side` must be 'left'.")
        sources = images_per_row(images, texts)
        if any(source is not None for source in sources):
            self.abilities.check_task(EDITING)
        sizes = self._sizes(wishes, sources)
        rows: list[TokenRow] = []
        for text, source, size in zip(texts, sources, sizes, strict=True):
            num_tokens = self.abilities.image_tokens(*size)
            prompt = self._tokenize([self._prompt(text)], merged["text_kwargs"])
            if published_eval:
                prompt = cut_prompt(prompt, num_tokens)
            row = drawing_prompt(prompt, self.ids)
            if source is not None:
                row = mixed_prompt([num_tokens, prompt], self.ids, opens_image=True)
            needed = len(row) + num_tokens + 2  # the time, and what closes it
            if needed > self.abilities.max_positions:
                raise ValueError(
                    f"A prompt of {len(prompt):,} tokens and its picture of {size[0]}x{size[1]} (height x width) need "
                    f"{needed:,} positions, but the model has {self.abilities.max_positions:,}; shorten the prompt or ask "
                    "for a smaller image."
                )
            rows.append({"input_ids": row})
        data: dict[str, Any] = pad_rows(self.tokenizer.pad_token_id, rows, merged["text_kwargs"])
        data |= self._null_rows(wishes.negative_prompt, len(texts), merged)
        data["image_size"] = np.array(sizes, dtype=np.int64)
        pixels = [
            self.image_processor.to_pixels(source, *size, source_fit)
            for source, size in zip(sources, sizes, strict=True)
            if source is not None
        ]
        return self._batch(data | ({"pixel_values": pixels} if pixels else {}), merged)

    def _prompt(self, text: str) -> str:
        """The words to draw from: a plain prompt, or what a rendered chat of one turn says."""
        if IM_START in text:
            history, text = split_chat(text)
            if history not in ("", _DEFAULT_SYSTEM):
                raise ValueError(
                    "A Show-o2 model draws from one prompt without a system's words or earlier turns; give the last "
                    "message alone, or pass generation_mode='auto' to go on with a chat."
                )
        words = text.replace(IMAGE_BLOCK, "").replace(IMAGE_PAD, "").strip()
        self.abilities.check_prompt(words)
        return words

    def _null_rows(self, negative_prompt: Any, batch: int, merged: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """What guidance steers away from: no words, or the negative ones."""
        rows: list[TokenRow] = []
        for negative in as_rows(negative_prompt, batch, "negative_prompt"):
            if not isinstance(negative, (str, type(None))):
                raise ValueError(f"`negative_prompt` is a {type(negative).__name__}, but must be text.")
            words = (negative or "").strip()
            self.abilities.check_prompt(words, "negative prompt")
            ids = self._tokenize([words], merged["text_kwargs"]) if words else []
            rows.append({"input_ids": drawing_prompt(ids, self.ids)})
        padded = pad_rows(self.tokenizer.pad_token_id, rows, {"padding": True, "padding_side": "left"})
        return {f"negative_{name}": value for name, value in padded.items()}

    def _sizes(self, wishes: SizeWishes, like: Sequence[Image.Image | None]) -> list[tuple[int, int]]:
        """The size of each row's picture, in pixels."""
        asked = {name: as_rows(getattr(wishes, name), len(like), name) for name in ("height", "width", "aspect_ratio")}
        sizes, abilities = [], self.abilities
        for index, picture in enumerate(like):
            height, width, ratio = (values[index] for values in asked.values())
            size = abilities.pick_size(height, width, ratio, picture)
            abilities.check_size(*size)
            sizes.append(size)
        return sizes

    # ------------------------------------------------------------------------------------------------- shared steps

    def _tokenize(self, texts: Sequence[str], text_kwargs: dict[str, Any]) -> list[int]:
        """Ids of texts that stand one behind the other, each tokenized by itself."""
        options = {**tokenizer_options(text_kwargs), "add_special_tokens": False}
        return [token for text in texts for token in self.tokenizer(text, **options)["input_ids"]]

    def _batch(self, data: dict[str, Any], merged: dict[str, dict[str, Any]]) -> ShowO2BatchFeature:
        return ShowO2BatchFeature.of_arrays(data, merged["text_kwargs"].get("return_tensors"))


def _published(text: str) -> list[str]:
    """A chat as the authors' script has it: no line break behind an image, and the last question's turn does not end."""
    text = text.replace(f"{VISION_END}\n", VISION_END)
    end = f"{IM_END}\n{_GENERATION_PROMPT}"
    return [text.removesuffix(end), f"\n{_GENERATION_PROMPT}"] if text.endswith(end) else [text]


def _flagged(text: str) -> str:
    return text if text.startswith(FLAG) else f"{FLAG} {text}"


def _placeholders(text: str) -> list[str]:
    """Those of images and videos, in order."""
    places = [(text.find(pad), pad) for pad in (IMAGE_PAD, VIDEO_PAD)]
    found = []
    while any(place >= 0 for place, _ in places):
        place, pad = min(one for one in places if one[0] >= 0)
        found.append(pad)
        places = [(text.find(other, place + 1), other) for other in (IMAGE_PAD, VIDEO_PAD)]
    return found


def _per_row(given: Any, flatten: Any, wanted: list[int], what: str) -> list[list[Any]]:
    """What was given, row by row: one list for all, or a list per row.

    Raises:
        ValueError: if placeholders and what was given do not match.
    """
    is_nested = (
        isinstance(given, (list, tuple))
        and len(given) == len(wanted)
        and all(item is None or isinstance(item, (list, tuple)) for item in given)
    )
    rows = [flatten(row) for row in given] if is_nested else [flatten(given)]
    found = [len(row) for row in rows]
    if found != wanted and (is_nested or found != [sum(wanted)]):
        raise ValueError(
            f"The prompts hold {_counted(wanted)} placeholders for {what}s, but {_counted(found)} were given; they must "
            f"match (`processor.apply_chat_template` writes one per {what})."
        )
    queue = iter([one for row in rows for one in row])
    return [[next(queue) for _ in range(count)] for count in wanted]


def _counted(counts: Sequence[int]) -> str:
    return " and ".join(map(str, counts))
