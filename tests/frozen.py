"""Drawings of a frozen checkpoint, kept so that rebuilding changes not one of them.

`python tests/frozen.py` records them anew: after the built-in checkpoint got other weights, and for no other reason.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

import wallaroo_hf
from golden import GoldenSet
from helpers import picture

FOLDER = Path(__file__).parent / "assets" / "frozen"
COMPACT = Path(__file__).parent / "assets" / "compact"
SIZES = ((64, 64), (64, 96), (96, 64), (128, 80))  # height, width in pixels
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"guidance_scale": 1.0},
    {"guidance_scale": 5.0, "top_k": 0},
    {"temperature": 0.7, "top_p": 0.9},
    {"window": 6},
)
PROMPTS = ("a red circle", "蓝色的星星", "three green squares on a long grey road")
INSTRUCTIONS = ("make it blue", "去掉红色的圆")
BUILT_IN_PROMPTS = ("a red heart and a blue square", "三个黄色的圆", "a green star to the left of a purple ring")
BUILT_IN_EDITS = ("remove the circle", "把背景变成蓝色")
KEPT_PIXELS = 5  # every so many drawings the pixels are kept too


def frozen_drawings() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """60 drawings by name: arguments of the processor, and of `generate` beside a generator."""
    for seed, (size, settings) in enumerate(itertools.product(SIZES, SETTINGS)):
        for task in ("drawing", "edit", "batch"):
            yield f"{task}-{seed}", _asked(task, seed, size), {"seed": seed, **settings}


def _asked(task: str, seed: int, size: tuple[int, int]) -> dict[str, Any]:
    texts = [PROMPTS[seed % 3]] if task == "drawing" else [INSTRUCTIONS[seed % 2]]
    images = None if task == "drawing" else [picture(seed)]
    if task == "batch":  # a drawing and an edit, whose prompts have different lengths
        texts, images = [PROMPTS[2], *texts], [None, *(images or ())]
    return {"text": texts, "images": images, "height": size[0], "width": size[1]}


def built_in_drawings() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """The same of the built-in checkpoint: a few prompts and edits with its own settings."""
    for seed, prompt in enumerate(BUILT_IN_PROMPTS):
        for height, width in ((96, 96), (64, 128)):
            yield f"drawing-{seed}-{width}", {"text": [prompt], "height": height, "width": width}, {"seed": seed}
    for seed, instruction in enumerate(BUILT_IN_EDITS):
        yield (
            f"edit-{seed}",
            {"text": [instruction], "images": [picture(9)], "height": 96, "width": 96},
            {"seed": seed},
        )


def run(model: Any, processor: Any, asked: dict[str, Any], settings: dict[str, Any]) -> tuple[list[list[int]], Any]:
    """New tokens of each row, and the pictures as uint8 `(H, W, 3)`."""
    inputs = processor(generation_mode="image", return_tensors="pt", **asked)
    options = {name: value for name, value in settings.items() if name != "seed"}
    generators = [torch.Generator().manual_seed(settings["seed"] + row) for row in range(len(asked["text"]))]
    tokens = model.generate(**inputs, generation_mode="image", generator=generators, **options)
    pixels = model.decode_image_tokens(tokens)
    images = processor.post_process_multimodal_output(pixels, generation_mode="image")
    new = tokens[:, inputs["input_ids"].shape[1] :].tolist()
    return new, [
        torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(*image.size[::-1], 3) for image in images
    ]


def recorded(name: str) -> tuple[dict[str, list[list[int]]], dict[str, torch.Tensor]]:
    """Tokens and pixels as they were recorded, `"compact"` or `"built_in"`."""
    tokens = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return tokens, load_file(FOLDER / f"{name}.safetensors")


def record(
    name: str, model: Any, processor: Any, drawings: Iterator[tuple[str, dict[str, Any], dict[str, Any]]]
) -> None:
    """Writes down what is drawn now."""
    tokens, kept = {}, {}
    for place, (drawing, asked, settings) in enumerate(drawings):
        tokens[drawing], pixels = run(model, processor, asked, settings)
        if place % KEPT_PIXELS == 0:
            kept |= {f"{drawing}/{row}": image for row, image in enumerate(pixels)}
    FOLDER.mkdir(exist_ok=True)
    lines = [f"{json.dumps(drawing)}: {json.dumps(rows)}" for drawing, rows in tokens.items()]
    (FOLDER / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    save_file(kept, FOLDER / f"{name}.safetensors")


def built_in() -> tuple[Any, Any]:
    """The built-in checkpoint in float32, and its processor."""
    folder = wallaroo_hf.default_checkpoint()
    model = wallaroo_hf.WallarooForConditionalGeneration.from_pretrained(folder, dtype="float32")
    return model.eval(), wallaroo_hf.WallarooProcessor.from_pretrained(folder)


def main() -> None:
    """Records `compact` and `built_in`, or those named."""
    names = sys.argv[1:] or ["compact", "built_in"]
    with tempfile.TemporaryDirectory() as workspace:
        if "compact" in names:
            golden = GoldenSet("compact", COMPACT, Path(workspace))
            record("compact", golden.model, golden.processor, frozen_drawings())
        if "built_in" in names:
            record("built_in", *built_in(), built_in_drawings())


if __name__ == "__main__":
    main()
