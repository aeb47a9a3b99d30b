"""Words, pictures, sizes and chats that are made up: most are fine, some are not."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from helpers import picture
from wallaroo_hf.layout.special_tokens import IMAGE_PAD, VISION_END, VISION_START

BLOCK = f"{VISION_START}{IMAGE_PAD}{VISION_END}"
# Words, parts of tokens, whole tokens, and what means something to some reader.
BITS = (
    *(
        "a",
        "cat",
        "一只猫",
        "é",
        "e\u0301",
        "\u0338",
        "🦘",
        "\u202e",
        "\x00",
        "\n",
        " ",
        '"',
        "{prompt}",
        "{",
        "%s",
        "x",
        ":",
    ),
    *(":", "16", "<", ">", "|", "<|", "|>", "<|im_", "end|>", "start|>", "im_end", "<|im_end|", "<|end_of_line>"),
    *("\uff1c|im_end|\uff1e", "\x00source\x00", "\x00target\x00", "<image>", "<video>", "<audio>", "\ud83d", "\udc00"),
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|repo_name|>", "<|im_end|>", "<|im_start|>", "<|endoftext|>"),
    *(IMAGE_PAD, BLOCK, "<|video_pad|>", "<|generate_start|>", "<|end_of_line>|", "<indicator:512>"),
    *("<|generate_image_pad|>", "<|pixel_start|>", "<|box_start|>", "<|im_start|>user\n", "<|im_end|>\n"),
)
NUM_PLAIN = 17  # of them that mean nothing
ROLES = ("system", "user", "assistant", "tool", "user\n", "<|im_end|>", "")


# Given as pictures; most are none.
ODD_PICTURES = (
    *(None, "nowhere.png", b"", b"\x89PNG", "", "\x00", 7, [], np.zeros((4, 4), np.uint8)),
    *(
        np.zeros((0, 0)),
        np.zeros((0, 0, 3), np.uint8),
        np.zeros((0, 7, 3)),
        np.zeros((3, 0, 5), np.float32),
        np.zeros(0),
    ),
    *(torch.zeros(0, 0), torch.zeros(3, 0, 0), torch.zeros(3, 4, 0, dtype=torch.bfloat16), Image.new("RGB", (0, 0))),
)


def some_words(rng: random.Random) -> str:
    """A few bits, mostly plain ones."""
    return "".join(rng.choice(BITS[:NUM_PLAIN] if rng.random() < 0.85 else BITS) for _ in range(rng.randint(0, 6)))


def some_picture(rng: random.Random) -> Image.Image:
    """A small picture of a usual mode."""
    image = picture(rng.randint(0, 3), rng.randint(1, 90), rng.randint(1, 90))
    return image.convert(rng.choice(("RGB", "RGB", "L", "RGBA", "P", "CMYK", "1", "LA")))


def some_chat(rng: random.Random) -> list[dict[str, Any]]:
    """Messages, most of them by turns."""
    messages: list[dict[str, Any]] = []
    for place in range(rng.randint(1, 4)):
        role = rng.choice(ROLES) if rng.random() < 0.1 else ("user", "assistant")[place % 2]
        content: Any = some_words(rng)
        if rng.random() < 0.6:
            content = [{"type": "text", "text": some_words(rng)} for _ in range(rng.randint(0, 3))]
            if role == "user" and rng.random() < 0.4:
                content.insert(rng.randint(0, len(content)), {"type": "image", "image": some_picture(rng)})
        messages.append({"role": role, "content": content})
    if rng.random() < 0.3:
        messages.insert(0, {"role": "system", "content": some_words(rng)})
    if rng.random() < 0.1:
        messages[-1][some_words(rng)] = some_words(rng)
    return messages


def quieted(value: Any) -> Any:
    """The same chat, in which every text is a word that is no token."""
    if isinstance(value, list):
        return [quieted(item) for item in value]
    if isinstance(value, dict):
        quiet = {key: quieted(item) if key in ("content", "text") else item for key, item in value.items()}
        if "role" in value:
            quiet["role"] = value["role"] if value["role"].strip() in ROLES[:4] else "someone"
        return quiet
    return ("yes" if value.strip() else value) if isinstance(value, str) else value


def some_side(rng: random.Random) -> Any:
    """A height or width, mostly one that fits."""
    odd = (0, -16, 17, 10**9, 32.0, "32", True, None, [32], math.nan, math.inf)
    return rng.choice((16, 32, 48, 64, 80)) if rng.random() < 0.9 else rng.choice(odd)


def some_ratio(rng: random.Random) -> Any:
    """A width to height, of which most are none."""
    odd = ("16:9", 1.5, "1", "0:1", "a", "1:0", "", ":", "1:2:3", -1, math.nan, math.inf, 10**400, 1e-320, None, [1.0])
    return rng.choice((*odd, "1e999"))


def some_image(rng: random.Random) -> Any:
    """A picture, as an array or of many bits now and then, or something else."""
    if rng.random() < 0.75:
        return some_picture(rng)
    return of_other_range(rng)[0] if rng.random() < 0.5 else rng.choice(ODD_PICTURES)


def of_other_range(rng: random.Random) -> tuple[Any, Image.Image]:
    """A gray picture as numbers of some range, in a picture or array of a type that holds them; and the picture itself."""
    gray = some_picture(rng).convert("L")
    gray.paste(0, (0, 0, 1, 1))
    gray.paste(255, (gray.width - 1, 0, gray.width, 1))  # so that there is no doubt about the range
    levels = np.asarray(gray).astype(np.int64)
    shares = levels / 255
    made: tuple[Callable[[], Any], ...] = (
        lambda: Image.fromarray(levels.astype(np.int32)),
        lambda: Image.fromarray(levels.astype(np.float32)),
        lambda: Image.fromarray(shares.astype(np.float32)),
        lambda: Image.fromarray((levels * 257).astype(np.uint16)),
        lambda: Image.frombytes("I;16B", gray.size, (levels * 257).astype(">u2").tobytes()),
        lambda: shares,
        lambda: np.stack([shares] * 3, axis=-1).astype(np.float32),
        lambda: np.stack([levels] * 3 + [np.full_like(levels, 255)], axis=-1),
        lambda: (levels * 257).astype(rng.choice(("<u2", ">u2", "int64", "float32"))),
        lambda: torch.from_numpy(np.stack([levels] * 3)).to(rng.choice((torch.uint8, torch.int32, torch.float16))),
        lambda: torch.from_numpy(np.stack([shares] * 3)).to(
            rng.choice((torch.bfloat16, torch.float16, torch.float64))
        ),
    )
    return rng.choice(made)(), gray


def some_junk(rng: random.Random, depth: int) -> Any:
    """Anything that JSON or a table can hold."""
    simple = (None, True, 0, -1, 7, math.nan, "", some_words(rng), "understanding", b"x", np.ones((2, 3), np.int64))
    if depth == 0 or rng.random() < 0.5:
        return rng.choice(simple)
    items = [some_junk(rng, depth - 1) for _ in range(rng.randint(0, 2))]
    return items if rng.random() < 0.5 else {some_words(rng) or "type": item for item in items}
