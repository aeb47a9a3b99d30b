"""What the official scorers read of the folders they are given: their rules, written again from what their code does."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from pathlib import Path
from typing import Any

from PIL import Image


def geneval_reads(folder: Path) -> list[tuple[dict[str, Any], str]]:
    """GenEval's `evaluate_images.py`: metadata and picture of everything that it would score."""
    read = []
    for name in os.listdir(folder):
        if not (folder / name).is_dir() or not name.isdigit():
            continue
        with (folder / name / "metadata.jsonl").open(encoding="ascii") as file:  # whatever the locale is
            metadata = json.load(file)  # fails for two lines
        assert {"tag", "prompt"} <= set(metadata)
        for picture in os.listdir(folder / name / "samples"):
            path = folder / name / "samples" / picture
            if path.is_file() and re.match(r"\d+\.png", picture):
                read.append((metadata, str(path.relative_to(folder))))
    return sorted(read, key=lambda entry: entry[1])


def dpg_reads(
    folder: Path, items: set[str], resolution: int, pic_num: int = 4
) -> tuple[dict[str, list[Image.Image]], list[str]]:
    """DPG-Bench's `compute_dpg_bench.py`: the cells of each item that it would score, and the files that fail."""
    scored: dict[str, list[Image.Image]] = {}
    failed = []
    corners = [(0, 0), (resolution, 0), (0, resolution), (resolution, resolution)][:pic_num]
    for name in os.listdir(folder):
        item = name.split(".")[0]
        try:
            whole = Image.open(folder / name)
            if item not in items:
                raise KeyError(item)
        except (OSError, KeyError):
            failed.append(name)
            continue
        assert item not in scored, "counted twice"
        scored[item] = [whole.crop((x, y, x + resolution, y + resolution)) for x, y in corners]
    return scored, failed


def imgedit_reads(folder: Path, table: Path, sources: Path) -> dict[str, tuple[Image.Image, Image.Image]]:
    """ImgEdit's `basic_bench.py`: source and result of every key; the two are sent to the judge as base64."""
    read = {}
    for key, entry in json.loads(table.read_text(encoding="utf-8")).items():
        sent = [base64.b64encode(path.read_bytes()) for path in (sources / entry["id"], folder / f"{key}.png")]
        first, second = (Image.open(io.BytesIO(base64.b64decode(text))) for text in sent)
        read[key] = (first, second)
    return read
