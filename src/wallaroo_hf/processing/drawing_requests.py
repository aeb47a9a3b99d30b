"""One row of a drawing batch: reading prompts, sources and sizes as users give them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..common.row_values import as_rows, sources_per_row
from ..families import sizes
from ..layout import prompt_texts
from ..layout.special_tokens import IM_START, IMAGE_PAD, VISION_END, VISION_START
from ..pictures.masks import open_row_mask
from ..pictures.opening import flatten_images, open_image
from .refused_words import refuse_in_rendered, refuse_special_tokens

# Far beyond the 4,096 tokens that rows of any training stage had; longer prompts would only fill memory.
MAX_PROMPT_CHARACTERS = 20_000


@dataclasses.dataclass(frozen=True)
class DrawingRequest:
    """What one row asks for.

    Attributes:
        prompt: the bare prompt or instruction.
        source: the image to edit, or None.
        target: the image to learn (training), or its codes `(rows, cols)` where it is encoded already, or None.
        size: `(height, width)` in pixels.
        negative: the words of the null prompt, as the user gave them; mostly empty.
        language: whose templates are used; the null prompt keeps the prompt's.
        history: everything before the user's turn, where the row came as a chat.
        fit: how the source is brought to `size`.
        task: the image task, as in `prompt_templates`; None = editing where there is a source, else generation.
        is_black: black pictures stand in the places of all `sources`, of which only the sizes count.
        mask: of the source's size, what of it is painted anew (not black), or None = all.
        references: images that the edit takes from, which are shown before `source`.
    """

    prompt: str
    source: Image.Image | None
    target: Image.Image | np.ndarray | None
    size: tuple[int, int]
    negative: str
    language: str
    history: str | None = None
    fit: str = "crop"
    task: str | None = None
    is_black: bool = False
    mask: Image.Image | None = None
    references: tuple[Image.Image, ...] = ()

    @property
    def sources(self) -> tuple[Image.Image, ...]:
        """All images that are shown, in order; none where it is drawn from words alone."""
        return self.references if self.source is None else (*self.references, self.source)

    @property
    def image_task(self) -> str:
        """The name of its image task."""
        return self.task or ("editing" if self.sources else "generation")

    @classmethod
    def from_text(
        cls,
        text: str,
        sources: Sequence[Image.Image],
        target: Image.Image | np.ndarray | None,
        size: tuple[int, int],
        negative: str,
        special_tokens: Sequence[str],
    ) -> "DrawingRequest":
        """Reads a plain prompt or a rendered chat.

        Args:
            text: a plain prompt or a rendered chat.
            sources: the images to edit, of which the last one is changed; none = draw from words alone.
            target: the image to learn, or its codes; None = draw one.
            size: `(height, width)` in pixels.
            negative: the user's negative prompt; empty = there is none.
            special_tokens: what no text may spell.

        Raises:
            ValueError: for an empty prompt (training rows may have one: the null prompts), a prompt with special
                tokens in it, or images in earlier turns.
        """
        history = None
        if IM_START in text:
            history, text = prompt_texts.split_chat(text)
            if IMAGE_PAD in history:
                raise ValueError(
                    "Images in earlier turns of a chat cannot be used for drawing yet; give source images in the "
                    "last user turn."
                )
            refuse_in_rendered(history, special_tokens)
        prompt = text.replace(f"{VISION_START}{IMAGE_PAD}{VISION_END}", "").replace(IMAGE_PAD, "").strip()
        if target is not None and prompt.startswith('"') and prompt.endswith('"'):
            prompt = prompt.strip('"')  # the templates bring quotes of their own (released data code)
        if not prompt and target is None:
            wanted = "what to change" if sources else "what to draw"
            raise ValueError(f"The prompt is empty; say {wanted} (the null prompt is added by itself).")
        for what, words in (("prompt", prompt), ("negative prompt", negative)):
            if len(words) > MAX_PROMPT_CHARACTERS:
                raise ValueError(
                    f"The {what} has {len(words):,} characters, but at most {MAX_PROMPT_CHARACTERS:,} can be drawn from; "
                    "shorten it."
                )
            refuse_special_tokens(what, words, special_tokens)
        language = prompt_texts.prompt_language(prompt or negative)
        references, source = tuple(sources[:-1]), sources[-1] if sources else None
        return cls(prompt, source, target, size, negative.strip(), language, history, references=references)

    def null_prompt(self) -> "DrawingRequest":
        """The null prompt: no words (or the negative ones), black sources of the same sizes, no history."""
        return dataclasses.replace(self, prompt=self.negative, history=None, is_black=True)

    def unprompted(self) -> "DrawingRequest":
        """The row of two-scale guidance that has the sources but no instruction."""
        return dataclasses.replace(self, prompt="", history=None)


def check_mode_arguments(
    generation_mode: str, wishes: Mapping[str, Any], training: Mapping[str, Any], drawing_only: Mapping[str, bool]
) -> None:
    """Refuses arguments that would be ignored in a mode.

    Args:
        wishes: size and negative prompt; None = not given.
        training: `target_images` and `return_labels`; None = not given.
        drawing_only: whether arguments that only image mode reads were given.

    Raises:
        ValueError: naming the first such argument and the mode it belongs to.
    """
    given = [name for name, is_given in drawing_only.items() if is_given]
    if generation_mode == "text":
        unread = [name for name in wishes if wishes[name] is not None] + given
        if training["target_images"] is not None:
            unread.append("target_images")
        if unread:
            raise ValueError(f"`{unread[0]}` is for drawing; pass generation_mode='image' with it.")
    if generation_mode == "auto":
        if given:
            raise ValueError(
                f"`{given[0]}` has no effect where the model decides; pass generation_mode='image' with it."
            )
        if training["return_labels"] and training["target_images"] is None:
            raise ValueError(
                "`return_labels` in auto mode needs `target_images`, one list per chat (empty where nothing is drawn)."
            )
        if training["target_images"] is not None and wishes["negative_prompt"] is not None:
            raise ValueError("`negative_prompt` has no effect in training; leave it out.")


def open_target(value: Any, image_token_size: int) -> tuple[Image.Image | np.ndarray, tuple[int, int] | None]:
    """An image to learn and, where it comes as codes, its size in pixels.

    Args:
        value: an image in any form, or its codes: integers `(rows, cols)`, an array or nested lists.

    Raises:
        ValueError: for codes that are no grid of integers.
    """
    is_codes = isinstance(value, np.ndarray) and value.ndim == 2
    if not is_codes and not (isinstance(value, (list, tuple)) and value and isinstance(value[0], (list, tuple))):
        return open_image(value), None
    try:
        codes = np.asarray(value)
    except ValueError:  # rows of unequal length
        codes = np.zeros(0)
    if codes.ndim != 2 or codes.size == 0 or not np.issubdtype(codes.dtype, np.integer) or codes.min() < 0:
        raise ValueError(
            f"A target image came as codes of shape {codes.shape} and type {codes.dtype}, but codes are non-negative "
            "integers (rows, cols), as `model.vq_model.encode` gives them."
        )
    return codes, (codes.shape[0] * image_token_size, codes.shape[1] * image_token_size)


def read_requests(
    texts: Sequence[str],
    images: Any,
    options: Mapping[str, Any],
    buckets: Sequence[tuple[int, int]],
    special_tokens: Sequence[str],
    image_token_size: int,
) -> list[DrawingRequest]:
    """One request per row of a batch.

    Args:
        texts: prompts or rendered chats.
        images: see [`sources_per_row`].
        options: `height`, `width`, `aspect_ratio`, `negative_prompt`, `target_images` and `mask_images`, each one value
            for all rows or one per row.
        buckets: the listed sizes.
        special_tokens: what a prompt must not contain.
        image_token_size: edge of one code in pixels.

    Raises:
        ValueError: for anything that cannot be drawn from.
    """
    rows = {name: as_rows(value, len(texts), name) for name, value in options.items()}
    requests = []
    for index, (text, sources) in enumerate(zip(texts, sources_per_row(images, texts), strict=True)):
        row = {name: values[index] for name, values in rows.items()}
        target, encoded_size = None, None
        if row["target_images"] is not None:
            target, encoded_size = open_target(row["target_images"], image_token_size)
        like = target if isinstance(target, Image.Image) else sources[-1] if sources else None
        size = pick_size(buckets, row["height"], row["width"], row["aspect_ratio"], like, encoded_size)
        negative = row["negative_prompt"] or ""
        request = DrawingRequest.from_text(text, sources, target, size, negative, special_tokens)
        requests.append(dataclasses.replace(request, mask=_open_mask(row["mask_images"], request, index)))
    return requests


def _open_mask(mask: Any, request: DrawingRequest, index: int) -> Image.Image | None:
    """A row's mask, if it has one; see [`open_row_mask`]."""
    if mask is not None and request.target is not None:
        raise ValueError(
            f"Row {index} of `mask_images` has a mask, but its row is to be learned; masks are for edits."
        )
    return open_row_mask(mask, request.source, index)


@dataclasses.dataclass(frozen=True)
class AutoRow:
    """One row of a batch in auto mode.

    Attributes:
        text: the rendered chat.
        images: its images, in order.
        size: `(height, width)` in pixels of what it may draw, and of its sources.
        size_was_asked_for: whether the size was given.
        null: the null prompt, should it draw.
    """

    text: str
    images: list[Image.Image]
    size: tuple[int, int]
    size_was_asked_for: bool
    null: DrawingRequest


def read_auto_rows(
    texts: Sequence[str],
    images: Any,
    size_options: Mapping[str, Any],
    negative_prompt: Any,
    buckets: Sequence[tuple[int, int]],
    special_tokens: Sequence[str],
    has_editing: bool,
) -> list[AutoRow]:
    """Rows of chats that may answer or draw, of the size that [`pick_chat_size`] says.

    Args:
        texts: rendered chats.
        images: those that they show, all in one list or a list per chat.
        size_options: `height`, `width`, `aspect_ratio` -> one value, or a list of one per chat.
        negative_prompt: the user's, one for all or one each; None = there is none.
        buckets: sizes to choose from.
        special_tokens: what no text may spell.
        has_editing: whether the checkpoint takes sources; without it their size says nothing.

    Raises:
        ValueError: if images and placeholders do not match, for a bad size, or a negative prompt with special tokens.
    """
    flat = flatten_images(images)
    counts = [text.count(IMAGE_PAD) for text in texts]
    if sum(counts) != len(flat):
        raise ValueError(
            f"The chats hold {sum(counts)} {IMAGE_PAD} placeholders, but {len(flat)} images were given; they must match "
            "(`processor.apply_chat_template` writes one per image)."
        )
    queue = iter(flat)
    asked = {name: as_rows(value, len(texts), name) for name, value in size_options.items()}
    negatives = as_rows(negative_prompt, len(texts), "negative_prompt")
    rows = []
    for index, (text, count) in enumerate(zip(texts, counts, strict=True)):
        own = [next(queue) for _ in range(count)]
        height, width, ratio = (asked[name][index] for name in ("height", "width", "aspect_ratio"))
        size = pick_chat_size(buckets, height, width, ratio, own if has_editing else ())
        negative = (negatives[index] or "").strip()
        refuse_special_tokens("negative prompt", negative, special_tokens)
        source = own[-1] if own else None
        language = prompt_texts.prompt_language(text)
        null = DrawingRequest(negative, source, None, size, negative, language, is_black=True)
        rows.append(AutoRow(text, own, size, (height, ratio) != (None, None), null))
    return rows


def pick_size(
    buckets: Sequence[tuple[int, int]],
    height: int | None,
    width: int | None,
    aspect_ratio: str | float | None,
    like: Image.Image | None,
    encoded_size: tuple[int, int] | None = None,
) -> tuple[int, int]:
    """The `(height, width)` to draw: as given, else by aspect ratio, else like an image, else the most square bucket.

    An image that is encoded already (`encoded_size`) has its size, whatever else is said.

    Args:
        buckets: sizes to choose from.
        height, width: as given.
        aspect_ratio: `"16:9"` or a number, width by height.
        like: an image whose shape is followed.
        encoded_size: of the image that the codes are of; None = nothing is encoded yet.

    Raises:
        ValueError: if only one edge is given, a size and an aspect ratio, or a size that codes do not have.
    """
    if encoded_size is not None:
        if height is not None and (height, width) != encoded_size:
            raise ValueError(
                f"A size of {height}x{width} (height x width) was asked for, but the target's codes are of an image of "
                f"{encoded_size[0]}x{encoded_size[1]}; leave the size out, or encode the image at that size."
            )
        return encoded_size
    return sizes.pick_size(buckets, height, width, aspect_ratio, like)


def pick_chat_size(
    buckets: Sequence[tuple[int, int]],
    height: int | None,
    width: int | None,
    aspect_ratio: str | float | None,
    sources: Sequence[Image.Image],
) -> tuple[int, int]:
    """The one `(height, width)` of what a chat may draw and of its sources.

    As given, else like its last source, which is what a drawing behind it edits, else the most square bucket.

    Args:
        sources: the images of the chat, in order; none where the checkpoint does not edit.

    Raises:
        ValueError: see [`pick_size`].
    """
    return pick_size(buckets, height, width, aspect_ratio, sources[-1] if sources else None)
