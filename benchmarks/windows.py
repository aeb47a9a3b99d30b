"""Do windows draw the codes that come one by one? Counts drawings that differ, codes per forward, and time.

    python benchmarks/windows.py --output windows.md

Prints markdown; the exit code is 1 if a drawing differs. On a CPU in float32 the built-in checkpoint takes some minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from measure import now
from transformers.utils import logging as transformers_logging

import wallaroo_hf
from wallaroo_hf.evaluation.items import Item, scene_items
from wallaroo_hf.generation import DrawingOutput
from wallaroo_hf.scenes import render

CHECKED_WINDOWS = (4, 8, 16, 32)
TABLE_WINDOWS = (2, 4, 8, 16, 32, 64)
BATCHES, GUIDANCES, CACHES = (1, 4), (1.0, 3.0), (None, "static")


class Drawer:
    """A checkpoint in float32 that draws the scenes benchmark's items.

    Args:
        folder: of the checkpoint.
        device: where to compute.
    """

    def __init__(self, folder: str, device: torch.device) -> None:
        self.device = device
        model = wallaroo_hf.WallarooForConditionalGeneration.from_pretrained(folder, dtype="float32")
        self.model = model.to(device).eval()
        self.processor = wallaroo_hf.WallarooProcessor.from_pretrained(folder)

    def __call__(self, items: Sequence[Item], seed: int, **options: Any) -> tuple[DrawingOutput, float]:
        """Draws a batch; also the seconds it took."""
        sources = [render(item.scene) for item in items if item.scene is not None]
        inputs = self.processor(
            text=[item.prompt.prompt for item in items if item.prompt is not None],
            images=sources or None,
            generation_mode="image",
            height=[item.height for item in items],
            width=[item.width for item in items],
            return_tensors="pt",
        ).to(self.device)
        options["generator"] = [torch.Generator().manual_seed(seed + index) for index in range(len(items))]
        start = now(self.device)
        output = self.model.generate(**inputs, generation_mode="image", return_dict_in_generate=True, **options)
        return output, now(self.device) - start


def _batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items) - size + 1, size):
        yield items[start : start + size]


def check(draw: Drawer, drawings: int) -> tuple[list[str], int]:
    """As many drawings per task, batch size, guidance and cache, window by window in turn; lines, and how many differ."""
    lines = ["| task | batch | guidance | cache | drawings | different | codes per forward |"]
    lines += ["|---|---|---|---|---|---|---|"]
    total = differing = 0
    for task, size, guidance in itertools.product(("generation", "editing"), BATCHES, GUIDANCES):
        found: dict[str | None, list[int]] = {cache: [0, 0, 0, 0] for cache in CACHES}
        for number, items in enumerate(_batches(scene_items(task, drawings), size)):
            seed = 1000 * number
            expected = draw(items, seed, guidance_scale=guidance)[0].sequences
            for cache in CACHES:
                window = CHECKED_WINDOWS[number % len(CHECKED_WINDOWS)]
                output, _ = draw(
                    items,
                    seed,
                    guidance_scale=guidance,
                    window=window,
                    cache_implementation=cache,
                    disable_compile=True,
                )
                different = int((output.sequences != expected).any(dim=1).sum())
                counts = [count for forward in output.statistics.decided for count in forward if count]
                found[cache] = [
                    old + new
                    for old, new in zip(found[cache], (size, different, sum(counts), len(counts)), strict=True)
                ]
        for cache, (drawn, different, codes, working) in found.items():
            lines.append(
                f"| {task} | {size} | {guidance:g} | {cache or 'dynamic'} | {drawn} | {different} | {codes / working:.2f} |"
            )
            total, differing = total + drawn, differing + different
        log(f"{task}, batches of {size}, guidance {guidance:g}: {found}")
    return [*lines, "", f"{total} drawings, of which {differing} differ from those drawn code by code."], differing


def table(draw: Drawer, images: int, temperatures: Sequence[float]) -> list[str]:
    """Codes per forward and time over one code at a time, one image at a time: windows across, settings down."""
    head = [f"W = {window}" for window in TABLE_WINDOWS]
    lines = ["| task | guidance | temperature | " + " | ".join(head) + " |", "|---" * (3 + len(head)) + "|"]
    for task, guidance, temperature in itertools.product(("generation", "editing"), (1.0, 1.5, 3.0), temperatures):
        # large pictures of the scenes, where there is something to guess from
        items = [item for item in scene_items(task, 40 * images) if item.height * item.width >= 96 * 96][:images]
        settings = {"guidance_scale": guidance, "temperature": temperature}
        cells = []
        alone = [draw([item], index, **settings)[1] for index, item in enumerate(items)]
        for window in TABLE_WINDOWS:
            drawn = [draw([item], index, window=window, **settings) for index, item in enumerate(items)]
            forwards = sum(output.statistics.forwards for output, _ in drawn)
            codes = sum(sum(counts) for output, _ in drawn for counts in output.statistics.decided)
            cells.append(f"{codes / forwards:.2f} ({sum(alone) / sum(seconds for _, seconds in drawn):.2f}x)")
        lines.append(f"| {task} | {guidance:g} | {temperature:g} | " + " | ".join(cells) + " |")
        log(lines[-1])
    return lines


def log(message: str) -> None:
    """To stderr, with the time."""
    sys.stderr.write(f"[{time.strftime('%H:%M:%S')}] {message}\n")


def weights_hash(folder: str) -> str:
    """Which checkpoint it was: the beginning of its weights' SHA-256, or nothing for weights in several files."""
    file = Path(folder) / "model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12] if file.exists() else "unknown"


def main() -> None:
    """Checks, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=wallaroo_hf.default_checkpoint(), help="default: the built-in checkpoint")
    parser.add_argument("--output", type=Path, help="file to write the markdown to, too")
    parser.add_argument("--drawings", type=int, default=36, help="per task, batch, guidance and cache (16 of them)")
    parser.add_argument("--images", type=int, default=8, help="per cell of the table")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.6, 1.0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="on CPU")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    transformers_logging.set_verbosity_error()
    draw = Drawer(str(args.model), torch.device(args.device))
    checked, differing = check(draw, args.drawings)
    where = f"{args.device} ({args.threads} thread(s))" if args.device == "cpu" else args.device
    lines = [
        f"Weights `{weights_hash(str(args.model))}`, float32, {where}, torch {version('torch')}, transformers "
        f"{version('transformers')}, Python {platform.python_version()}.",
        *("", "### The same codes", "", *checked),
        *("", "### Codes per forward (and time of code by code over time of windows)", ""),
        *table(draw, args.images, args.temperatures),
    ]
    text = "\n".join([*lines, ""])
    if args.output is not None:
        args.output.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    raise SystemExit(1 if differing else 0)


if __name__ == "__main__":
    main()
