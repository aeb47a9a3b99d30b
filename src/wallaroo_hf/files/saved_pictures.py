"""Pictures as files that say how they were made."""

import json
import re
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .._version import __version__
from .whole import new_file

__all__ = ["save_png", "slug"]


def save_png(
    image: Image.Image, path: Path, prompt: str, seed: int, settings: dict[str, Any], replace: bool = False
) -> Path:
    """Saves a PNG that says how it was made (text chunks `prompt`, `seed`, `settings`, `software`).

    The file appears whole or not at all. Unless `replace`, it never replaces another one: a number is added to its name.

    Args:
        image: the picture.
        path: the file's name as wished.
        prompt: what it was drawn from.
        seed: what it was drawn with.
        settings: everything else, in words and numbers that JSON knows.
        replace: whether a file of that name is replaced; without it the new one takes another name.
    """
    info = PngInfo()
    info.add_itxt("prompt", prompt)
    info.add_text("seed", str(seed))
    info.add_itxt("settings", json.dumps(settings, ensure_ascii=False, sort_keys=True))
    info.add_text("software", f"wallaroo-hf {__version__}")
    free, number = path, 2
    while free.exists() and not replace:
        free, number = path.with_stem(f"{path.stem}-{number}"), number + 1
    with new_file(free) as partial:
        image.save(partial, format="PNG", pnginfo=info)
    return free


def slug(prompt: str) -> str:
    """A file name that recalls the prompt."""
    return re.sub(r"\W+", "-", prompt.lower()).strip("-")[:48].rstrip("-") or "image"
