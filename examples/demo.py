"""Converts a tiny checkpoint in the authors' format, draws a picture from a text and edits a photo with it.

    python examples/demo.py --output demo

The tiny checkpoint's weights are random, so its pictures are noise: the demo shows that everything runs, on any laptop.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image

from wallaroo_hf import WallarooForConditionalGeneration, WallarooProcessor
from wallaroo_hf.conversion import convert_checkpoint

REPOSITORY = Path(__file__).resolve().parents[1]
TINY = REPOSITORY / "tests" / "assets" / "compact"
PHOTO = REPOSITORY / "examples" / "lake.jpg"


def convert(output: Path) -> Path:
    """Converts the tiny checkpoint, unless that has been done."""
    folder = output / "checkpoint"
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory() as base:
        shutil.copytree(TINY / "tokenizer", base, dirs_exist_ok=True)
        shutil.copy(TINY / "model" / "config.json", base)
        model = TINY / "model"
        return convert_checkpoint(model / "checkpoint.ckpt", model / "vq_ds16_t2i.pt", base, folder, dtype="float32")


def draw(
    model: WallarooForConditionalGeneration,
    processor: WallarooProcessor,
    text: str,
    seed: int,
    images: list[Image.Image] | None = None,
    **size: int,
) -> Image.Image:
    """Draws from a text, or edits the one image given."""
    inputs = processor(text=[text], images=images, generation_mode="image", return_tensors="pt", **size)
    tokens = model.generate(**inputs, generation_mode="image", generator=torch.Generator().manual_seed(seed))
    pixels = model.decode_image_tokens(tokens)
    return processor.post_process_multimodal_output(pixels, generation_mode="image")[0]


def main() -> None:
    """Runs the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder to write to (default: demo)")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)

    print("1/3  Converting the tiny checkpoint ...")
    folder = convert(output)
    model = WallarooForConditionalGeneration.from_pretrained(folder).eval()
    processor = WallarooProcessor.from_pretrained(folder)

    print("2/3  Drawing 'a red fox in the snow' at 256x256 ...")
    drawing = draw(model, processor, "a red fox in the snow", seed=1, height=256, width=256)
    drawing.save(output / "drawing.png")

    print("3/3  Editing examples/lake.jpg: 'make it winter' ...")
    photo = Image.open(PHOTO)
    edited = draw(model, processor, "make it winter", seed=2, images=[photo], height=240, width=320)
    edited.save(output / "edit.png")

    print(f"\nDone: {output / 'drawing.png'} and {output / 'edit.png'}")
    print("The weights of this tiny checkpoint are random, so the pictures are noise.")
    command = os.path.relpath(Path(sys.executable).with_name("wallaroo"))
    print(f"The converted checkpoint is in {folder}; try: {command} generate 'a cat' --model {folder}")


if __name__ == "__main__":
    main()
