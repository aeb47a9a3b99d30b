"""Draws the pictures of the README with the built-in checkpoint: docs/images/drawings.png.

python docs/drawings.py
"""

import argparse
from pathlib import Path

import torch
from PIL import Image

from wallaroo_hf import WallarooForConditionalGeneration, WallarooPipeline, WallarooProcessor, default_checkpoint
from wallaroo_hf.training.reports import contact_sheet

PROMPTS = (
    "a green star on a black background",
    "a red heart and a blue square",
    "three yellow circles",
    "an orange ring above a purple cross",
    "一个粉色的心形",
    "灰色背景上的蓝色十字",
    "一个绿色的三角形和一个红色的圆环",
    "两颗橙色的星星",
)
EDITS = ("make the square yellow", "把圆环去掉")  # of the second and of the seventh
SCALE = 2


def main() -> None:
    """Draws, edits, and writes one sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="another checkpoint (default: the built-in one)")
    parser.add_argument("--seed", type=int, default=1, help="picture k gets seed + k (default: 1)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "images" / "drawings.png")
    arguments = parser.parse_args()
    folder = arguments.model or default_checkpoint()
    pipe = WallarooPipeline(
        model=WallarooForConditionalGeneration.from_pretrained(folder, dtype="float32"),
        processor=WallarooProcessor.from_pretrained(folder),
    )
    seeds = [torch.Generator().manual_seed(arguments.seed + index) for index in range(len(PROMPTS))]
    drawings = pipe(list(PROMPTS), generator=seeds).images
    seeds = [torch.Generator().manual_seed(arguments.seed) for _ in EDITS]
    edited = pipe(list(EDITS), image=[drawings[1], drawings[6]], generator=seeds).images
    images = [*drawings[:4], edited[0], *drawings[4:], edited[1]]
    ours = [f"the row's {which}, edited: {edit}" for which, edit in zip(("second", "third"), EDITS)]
    captions = [*PROMPTS[:4], ours[0], *PROMPTS[4:], ours[1]]
    larger = [image.resize((image.width * SCALE, image.height * SCALE), Image.Resampling.LANCZOS) for image in images]
    print(contact_sheet(larger, captions, arguments.output, columns=5))


if __name__ == "__main__":
    main()
