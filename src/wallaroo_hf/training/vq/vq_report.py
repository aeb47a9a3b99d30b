"""What a training run of the image tokenizer leaves to look at: a log, a plot, contact sheets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from PIL import Image

__all__ = ["append_log", "contact_sheet", "plot_log", "read_log", "rewind_log"]

_GAP = 4  # pixels between pictures


def append_log(path: Path, record: dict[str, Any]) -> None:
    """Adds one line of JSON."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """All records of a log; a last line that was cut off by a crash is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # only a whole line ends in a line break
    return [json.loads(line) for line in lines]


def rewind_log(path: Path, step: int) -> None:
    """Drops what was logged after `step`, so that a resumed run does not log it twice."""
    kept = [record for record in read_log(path) if record["step"] <= step]
    partial = path.with_name(f".{path.name}-partial")
    partial.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
    os.replace(partial, path)


def contact_sheet(path: Path, pixel_values: torch.Tensor, reconstruction: torch.Tensor, columns: int = 8) -> None:
    """Saves images with their reconstructions below them.

    Args:
        pixel_values, reconstruction: `(B, 3, H, W)`, around [-1, 1].
        columns: images side by side.
    """
    # as `WallarooImageProcessor.from_vq_pixels` does it
    both = [(127.5 * half.float() + 128).clamp(0, 255).byte().cpu() for half in (pixel_values, reconstruction)]
    count, _, height, width = both[0].shape
    columns = min(columns, count)
    rows = -(-count // columns)
    sheet = Image.new("RGB", (columns * (width + _GAP) + _GAP, rows * (2 * height + 2 * _GAP) + _GAP), "white")
    for half, images in enumerate(both):
        for index, image in enumerate(images):
            left = _GAP + index % columns * (width + _GAP)
            top = _GAP + index // columns * (2 * height + 2 * _GAP) + half * (height + _GAP // 2)
            sheet.paste(Image.fromarray(image.permute(1, 2, 0).numpy()), (left, top))
    partial = path.with_name(f".{path.stem}-partial.png")
    sheet.save(partial)
    os.replace(partial, path)


def plot_log(log: Path, path: Path) -> None:
    """Draws every number of a log over the steps, one small axis each, as a PNG.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if nothing was logged yet.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Plots need matplotlib; install it with `pip install matplotlib`.") from error
    records = read_log(log)
    names = [name for name in (records[-1] if records else {}) if name not in ("step", "seconds")]
    if not names:
        raise ValueError(f"Nothing was logged in '{log}' yet; train first.")
    columns = 3
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4.5 * columns, 2.6 * rows), layout="constrained")
    for index, name in enumerate(names):
        axis = figure.add_subplot(rows, columns, index + 1, title=name, xlabel="step")
        values = [(record["step"], record[name]) for record in records if name in record]
        axis.plot(*zip(*values), linewidth=1)
        if name.endswith("loss") and min(value for _, value in values) > 0:
            axis.set_yscale("log")
        axis.grid(alpha=0.3)
    partial = path.with_name(f".{path.stem}-partial.png")
    figure.savefig(partial, dpi=110)
    os.replace(partial, path)
