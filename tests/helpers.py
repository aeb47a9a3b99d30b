"""Small things that several tests need."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageChops


def picture(seed: int, width: int = 128, height: int = 96) -> Image.Image:
    """A smooth random picture."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def generators(*seeds: int) -> list[torch.Generator]:
    """One generator per seed."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def new_tokens(model: Any, sequences: torch.Tensor, inputs: Any) -> list[list[int]]:
    """What was added to each row's prompt, up to the image's end."""
    end = model.config.generate_end_token_id
    rows = sequences[:, inputs["input_ids"].shape[1] :].tolist()
    return [row[: row.index(end) + 1] for row in rows]


def draw(model: Any, inputs: Any, **kwargs: Any) -> list[list[int]]:
    """Draws and returns the new tokens of each row."""
    return new_tokens(model, model.generate(**inputs, generation_mode="image", **kwargs), inputs)


def training_rows(task: str, count: int, **more: Any) -> list[dict[str, Any]]:
    """Rows of a task that say which they are (`number`); their pictures are never opened."""
    image = {"type": "image"}
    user, answer, images = {
        "understanding": ("hi", "yes", []),
        "generation": ("a cat", [image], [b"cat"]),
        "editing": ([image, {"type": "text", "text": "bluer"}], [image], [b"cat", b"blue cat"]),
    }[task]
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    return [{"messages": messages, "images": images, "number": number, **more} for number in range(count)]


def same_picture(one: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures are equal up to rounding, which moves with the batch that they were decoded in."""
    return one.size == other.size and max(high for _, high in ImageChops.difference(one, other).getextrema()) <= 1
