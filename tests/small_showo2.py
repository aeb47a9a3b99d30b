"""A Show-o2 of a few thousand weights with a linear codec, its processor, and rows to train it on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from wallaroo_hf.showo2.training.showo2_small_model import fit_codec, new_small_showo2, small_tokenizer

SIZES = [(32, 32), (32, 64)]
_WORDS = [
    "a red square above a blue circle",
    "what colour is it?",
    "red",
    "blue",
    "make it green",
    "一个红色的圆",
    "system",
]


def new_showo2(seed: int = 0, sizes: Any = SIZES, **settings: Any) -> tuple[Any, Any]:
    """Model and processor."""
    generator = torch.Generator().manual_seed(7)
    codec = fit_codec(torch.rand(3, 32, 32, generator=generator) * 2 - 1 for _ in range(20))
    small: dict[str, Any] = {
        "width": 32,
        "num_hidden_layers": 2,
        "num_flow_layers": 1,
        "num_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 48,
        "semantic_width": 16,
        "num_semantic_layers": 1,
    }
    model, processor = new_small_showo2(
        small_tokenizer(_WORDS * 3, 300), codec, sizes, seed=seed, **{**small, **settings}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)  # modulations and the output begin at zero, and would hide what is before them
        for name, parameter in model.named_parameters():
            if "modulation" in name or name.startswith("flow_head.output"):
                torch.nn.init.normal_(parameter, std=0.3)
    return model, processor


def save_showo2(folder: Path, **settings: Any) -> Path:
    """A checkpoint's folder."""
    model, processor = new_showo2(**settings)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def picture(colour: Any = (200, 40, 40), size: tuple[int, int] = (32, 32)) -> Image.Image:
    """A picture with some structure, `size` as `(width, height)`."""
    image = Image.new("RGB", size, colour)
    image.paste((20, 90, 220), (size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2))
    return image


def user(*content: Any) -> dict[str, Any]:
    """A turn; None is a picture."""
    return _turn("user", content)


def assistant(*content: Any) -> dict[str, Any]:
    """A turn; None is a picture."""
    return _turn("assistant", content)


def _turn(role: str, content: Any) -> dict[str, Any]:
    parts = [{"type": "image"} if part is None else {"type": "text", "text": part} for part in content]
    return {"role": role, "content": parts}


def drawing(words: str = "a red square", **more: Any) -> dict[str, Any]:
    """A row that draws."""
    return {"messages": [user(words), assistant(None)], "images": [picture()], **more}


def question(answer: str = "red", **more: Any) -> dict[str, Any]:
    """A row that answers."""
    return {"messages": [user(None, "what colour is it?"), assistant(answer)], "images": [picture()], **more}


def edit(**more: Any) -> dict[str, Any]:
    """A row that edits."""
    images = [picture(), picture((10, 200, 10))]
    return {"messages": [user(None, "make it green"), assistant(None)], "images": images, **more}


def story(**more: Any) -> dict[str, Any]:
    """A row in which the assistant writes and draws three times."""
    images = [picture(), picture((0, 0, 0)), picture((90, 90, 0))]
    said = ("one", None, "two", None, "three", None)
    return {"messages": [user("a red circle"), assistant(*said)], "images": images, **more}
