"""What drawings can be at best: pictures to learn after a way through the image codec, known before anything is trained."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..families.training_stages import TrainingStage
from .data.mixing import Source
from .data.training_rows import Row, check_row, picture_roles, row_name
from .pictures import open_picture
from .reports import contact_sheet
from .run import RunOptions, prepared_processor

__all__ = ["NO_BETTER", "BestPicture", "best_pictures", "psnr", "write_sheet"]

MOST = 8
NO_BETTER = 20.0  # dB; below, what is lost in the codec is what one sees first
_COLUMNS = 4


@dataclass(frozen=True)
class BestPicture:
    """A picture to learn, and what the codec makes of it.

    Attributes:
        name: of its row.
        picture: at the size that it is learned at.
        best: the same through the codec and back.
        psnr: how near they are, in dB; see [`psnr`].
    """

    name: str
    picture: Image.Image
    best: Image.Image
    psnr: float


def psnr(first: Image.Image, second: Image.Image) -> float:
    """The peak signal-to-noise ratio of two RGB pictures of one size, in dB; infinite where they are equal."""
    one, other = (np.asarray(picture.convert("RGB"), dtype=np.float64) for picture in (first, second))
    error = float(np.mean((one - other) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def best_pictures(
    options: RunOptions, sources: Mapping[str, Sequence[Source]], chosen: TrainingStage
) -> list[BestPicture]:
    """Up to eight different pictures that rows draw, spread over all rows, as they are and through the codec.

    Rows that cannot be trained on and pictures that are encoded already are passed over. Only the codec is loaded.

    Args:
        options: name the checkpoint.
        sources: rows by task.
        chosen: the stage.

    Returns:
        None of them for rows that draw nothing, and for a family whose pictures are not encoded by themselves.

    Raises:
        ValueError: for a checkpoint that cannot be loaded, or that the stage does not follow.
    """
    kit, processor = prepared_processor(options, chosen)
    found: list[BestPicture] = []
    encoder, seen = None, set()
    for task, row in _spread(sources) if "encode" in kit.options else ():
        for name, key, size, picture in _drawn(task, row, kit, processor):
            if key in seen:
                continue
            seen.add(key)
            if encoder is None:
                encoder = kit.encoder(kit.load_codec(options.model, options.check_weights), processor)
            pixels = torch.as_tensor(processor.to_pixels(picture, *size))[None]  # (1, 3, H, W)
            with torch.inference_mode():
                shown, best = processor.pictures([pixels[0], encoder.reconstruct(pixels)[0].float().cpu()])
            found.append(BestPicture(name, shown, best, psnr(shown, best)))
            if len(found) == MOST:
                return found
    return found


def _spread(sources: Mapping[str, Sequence[Source]]) -> Iterator[tuple[str, Row]]:
    """Rows, first some from everywhere, then the others; of streams the first ones."""
    flat = [(task, source) for task, found in sources.items() for source in found]
    mapped = [(task, source) for task, source in flat if hasattr(source.rows, "__len__")]
    places = [(task, source, index) for task, source in mapped for index in range(len(source.rows))]
    step = max(1, len(places) // MOST)
    for start in range(step):
        for task, source, index in places[start::step]:
            yield task, {"name": f"{source.name}[{index}]", **_present(source.rows[index])}
    for task, source in flat:
        if not hasattr(source.rows, "__len__"):
            yield from ((task, {"name": source.name, **_present(row)}) for row in islice(source.rows, MOST))


def _present(row: Mapping[str, Any]) -> Row:
    return {key: value for key, value in row.items() if value is not None}


def _drawn(task: str, row: Row, kit: Any, processor: Any) -> Iterator[tuple[str, Any, tuple[int, int], Image.Image]]:
    """Name, key, size and picture of what a row draws; nothing of one that cannot be trained on, or is encoded."""
    planner = kit.encoder(None, processor)
    try:
        check_row(row, kit.tasks, planner.size_multiple)
        pairs = list(zip(picture_roles(row), row.get("images") or (), strict=True))
        drawn = [picture for role, picture in pairs if role == "assistant"]
        if not drawn or any(picture is None for _, picture in pairs):
            return
        opened = [open_picture(picture) for picture in drawn]
        shown = [partial(open_picture, picture) for role, picture in pairs if role != "assistant"]
        size, _ = planner.plan(row, task, [partial(_same, picture) for picture in opened], shown)
    except ValueError:  # the report on all rows says so
        return
    if size is not None:
        for picture, image in zip(drawn, opened, strict=True):
            yield row_name(row), _key(picture, image), size, image


def _same(picture: Image.Image) -> Image.Image:
    return picture


def _key(picture: Any, opened: Image.Image) -> Any:
    """What tells a picture from others: several rows may have one."""
    return picture if isinstance(picture, str) else hashlib.blake2b(opened.tobytes()).digest()


def write_sheet(found: Sequence[BestPicture], path: str | Path) -> Path:
    """Writes pictures and, below each, what the codec makes of them, with their names and PSNR.

    Args:
        found: at least one.
        path: of the image file; one that is there is replaced.
    """
    pictures: list[Image.Image | None] = []
    captions: list[str] = []
    for start in range(0, len(found), _COLUMNS):
        line = found[start : start + _COLUMNS]
        empty = min(_COLUMNS, len(found)) - len(line)
        pictures += [*(one.picture for one in line), *[None] * empty, *(one.best for one in line), *[None] * empty]
        captions += [*(one.name for one in line), *[""] * empty]
        captions += [*(f"at best: {one.psnr:.1f} dB" for one in line), *[""] * empty]
    return contact_sheet(pictures, captions, path, columns=min(_COLUMNS, len(found)))
