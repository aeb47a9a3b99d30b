"""What users give once for a batch or once per row, as one value per row."""

from collections.abc import Iterable, Sequence
from typing import Any

from PIL import Image

from ..pictures.opening import flatten_images
from .chat_form import IMAGE_PAD

__all__ = ["as_rows", "as_texts", "images_per_row", "sources_per_row"]


def as_texts(text: Any) -> list[str]:
    """The prompts of a batch.

    Raises:
        ValueError: if there are none, or they are no strings.
    """
    if text is None:
        raise ValueError("`text` is missing: give a prompt, or a list with one per row.")
    texts = [text] if isinstance(text, str) else list(text) if isinstance(text, Iterable) else []
    if not texts or not all(isinstance(item, str) for item in texts):
        raise ValueError("`text` must be a string or a non-empty list of strings.")
    return texts


def as_rows(value: Any, batch: int, name: str) -> list[Any]:
    """One value per row: a single value is repeated, a list must have one entry per row.

    Raises:
        ValueError: if a list has another length.
    """
    if not isinstance(value, (list, tuple)):
        return [value] * batch
    if len(value) != batch:
        raise ValueError(
            f"`{name}` has {len(value)} entries, but there are {batch} prompts; give one for all or one each."
        )
    return list(value)


def sources_per_row(images: Any, texts: Sequence[str]) -> list[list[Image.Image]]:
    """The source images of each row, in order; none where it draws from words alone.

    Accepts one image, a list with one image (or None, or a list of several) per row, or a flat list for the rows whose text
    has as many `<|image_pad|>`.

    Raises:
        ValueError: if it cannot be told whose images they are, or a text has another number of `<|image_pad|>`.
    """
    batch = len(texts)
    if images is None:
        rows: list[list[Image.Image]] = [[] for _ in texts]
    elif isinstance(images, (list, tuple)) and len(images) == batch:
        rows = [flatten_images(item) for item in images]
    else:
        flat = flatten_images(images)
        wanted = [text.count(IMAGE_PAD) for text in texts]
        if batch == 1 and len(flat) > 1 and wanted != [len(flat)]:
            raise ValueError(
                f"{len(flat)} images were given for one instruction; an edit takes exactly one, or a list of several that "
                "belong together: images=[[first, second]]."
            )
        if batch == 1:
            wanted = [len(flat)]
        if sum(wanted) != len(flat):
            raise ValueError(
                f"{len(flat)} images were given for {batch} prompts; give one source image per prompt (None for a "
                "prompt without, a list for a prompt about several)."
            )
        queue = iter(flat)
        rows = [[next(queue) for _ in range(count)] for count in wanted]
    for row, text in zip(rows, texts, strict=True):
        count = text.count(IMAGE_PAD)
        if count and not row:
            raise ValueError("A prompt has an <|image_pad|>, but no image was given for it; pass it in `images`.")
        if count not in (0, len(row)):
            raise ValueError(f"A prompt has {count} <|image_pad|>, but {len(row)} images; they must match in number.")
    return rows


def images_per_row(images: Any, texts: Sequence[str]) -> list[Image.Image | None]:
    """The one source image of each row, or None; see [`sources_per_row`].

    Raises:
        ValueError: also if a row would get more than one source.
    """
    rows = sources_per_row(images, texts)
    for row in rows:
        if len(row) > 1:
            raise ValueError(
                f"{len(row)} source images were given for one instruction, but an edit takes exactly one; give each "
                "source its own instruction."
            )
    return [row[0] if row else None for row in rows]
