"""Training rows taken apart: the chat, what it shows and what it draws, whatever family trains on them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..pictures import open_picture
from ..row_videos import open_row_video
from .training_rows import ORDINAL, VIDEO, one_line, refuse_media, row_ordinal

__all__ = ["Numbered", "RowParts", "only_draws", "row_label", "take_apart"]


@dataclasses.dataclass
class RowParts:
    """A row taken apart: its chat, the images that are shown and those that the assistant draws.

    Attributes:
        messages: with every content as a list of parts.
        shown, drawn: pictures, in order; of those that were encoded ahead, what they became.
        latents: of the shown ones, where they were encoded ahead (`source_latents`).
        posteriors: of all pictures, in order, where they were encoded ahead (`image_latents`); then none was opened.
        scales: of the drawn picture, where it was encoded ahead (`scale_latents`); then none was opened.
        videos: that are shown, in order.
    """

    messages: list[dict[str, Any]]
    shown: list[Any]
    drawn: list[Any]
    latents: list[Any] | None
    posteriors: list[Any] | None = None
    scales: list[Any] | None = None
    videos: list[Any] = dataclasses.field(default_factory=list)

    @property
    def roles(self) -> list[str]:
        """Whose turn each picture is in, in order."""
        return [turn["role"] for turn in self.messages for part in turn["content"] if part["type"] == "image"]

    @property
    def pictures(self) -> list[Any]:
        """All of them, in order."""
        shown, drawn = iter(self.shown), iter(self.drawn)
        return [next(drawn if role == "assistant" else shown) for role in self.roles]


class Numbered(torch.utils.data.Dataset):
    """A map-style data set whose rows also say their number (`ordinal`), which fixes the collator's random choices."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.rows[index], ORDINAL: index}


def row_label(row: Mapping[str, Any]) -> str:
    """What a row is called in messages: its `name`, else its number, else its first words."""
    for known in (row.get("name"), row_ordinal(row)):
        if known is not None:
            return one_line(known)
    return repr(str(row.get("messages"))[:60])


def take_apart(row: Mapping[str, Any]) -> RowParts:
    """The chat with every content as a list, and its images by who shows them.

    Args:
        row: as it was read, or as it was encoded ahead.

    Raises:
        ValueError: if it has no messages, or other images than these show.
    """
    messages = row.get("messages")
    if not messages:
        raise ValueError("it has no `messages`; see docs/data.md for the form of a row.")
    refuse_media(row)
    ahead = row.get("image_latents")
    posteriors = None if ahead is None or len(ahead) == 0 else list(ahead)
    scales = list(row.get("scale_latents") or []) or None
    pictures = row.get("images") or []
    images = posteriors or (pictures if scales else [None if one is None else open_picture(one) for one in pictures])
    encoded = [scales] if scales else list(row.get("image_tokens") or [])
    chat: list[dict[str, Any]] = []
    shown: list[Any] = []
    drawn: list[Any] = []
    used = 0
    for message in messages:
        content = message["content"]
        content = [{"type": "text", "text": content}] if isinstance(content, str) else content
        chat.append({"role": message["role"], "content": _plain(content)})
        for item in content:
            if item["type"] != "image":
                continue
            image = images[used] if used < len(images) else None
            used += 1
            if message["role"] != "assistant":
                shown.append(image)
            elif image is None and len(drawn) < len(encoded):
                drawn.append(encoded[len(drawn)])
            else:
                drawn.append(image)
    if (images and used != len(images)) or any(image is None for image in shown + drawn):
        raise ValueError(f"its messages show {used} images, but it brings {len(images)}; they must match in number.")
    latents = row.get("source_latents")
    sources = None if latents is None or len(latents) == 0 else list(latents)
    videos = [open_row_video(video) for video in row.get("videos") or []]
    num_shown = sum(item["type"] == VIDEO for message in chat for item in message["content"])
    if num_shown != len(videos):
        raise ValueError(
            f"its messages show {num_shown} videos, but it brings {len(videos)}; they must match in number."
        )
    return RowParts(chat, shown, drawn, sources, posteriors, scales, videos)


def _plain(content: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Content items with the fields of their type only (`datasets` fills others with None)."""
    items: list[dict[str, Any]] = []
    for item in content:
        if item["type"] == "text":
            items.append({"type": "text", "text": item["text"]})
        elif item["type"] in ("image", VIDEO):
            items.append({"type": item["type"]})
        else:
            raise ValueError(
                f"a message holds content of type {item['type']!r}, but only text, image and video are known."
            )
    return items


def only_draws(parts: RowParts, max_sources: int | None = 1) -> bool:
    """Whether the row is one drawing: the last answer is one image and nothing else, from sources in the turn before.

    Args:
        parts: of the row.
        max_sources: how many sources an edit may have; None = any number.
    """
    answer = parts.messages[-1]
    return (
        len(parts.messages) >= 2
        and answer["role"] == "assistant"
        and [item["type"] for item in answer["content"]] == ["image"]
        and len(parts.drawn) == 1
        and (max_sources is None or len(parts.shown) <= max_sources)
        and parts.messages[-2]["role"] == "user"
        and sum(item["type"] == "image" for item in parts.messages[-2]["content"]) == len(parts.shown)
    )
