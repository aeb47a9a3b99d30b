"""Draws and edits through transformers' `pipeline`: `python examples/pipeline.py` (or `--model MODEL --output FOLDER`)."""

import argparse
from pathlib import Path

from transformers import pipeline

import wallaroo_hf  # registers the tasks

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default=wallaroo_hf.default_checkpoint())
parser.add_argument("--output", type=Path, default=Path("."))
arguments = parser.parse_args()
heart = pipeline("text-to-image", model=arguments.model)("a red heart").images[0]
blue = pipeline("image-editing", model=arguments.model)("turn the heart blue", image=heart).images[0]
for name, image in (("heart", heart), ("blue", blue)):
    image.save(arguments.output / f"{name}.png")
print(f"Drawn and edited: {arguments.output}/heart.png, {arguments.output}/blue.png")
