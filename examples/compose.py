"""Edits a picture by what another one shows. The released weights never learned it; this is for checkpoints that did.

python examples/compose.py
python examples/compose.py first.png second.png "put the cat of the first picture onto the sofa of the second" --model mine
"""

import argparse

import torch
from PIL import Image
from transformers import pipeline

import wallaroo_hf
from wallaroo_hf.scenes import make_composition, render_row

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default=wallaroo_hf.default_checkpoint(), help="default: the built-in checkpoint")
parser.add_argument(
    "given", nargs="*", help="pictures, of which the last one is changed, then what to do; default: scenes"
)
parser.add_argument("--output", default="compose.png")
parser.add_argument("--seed", type=int, default=1)
arguments = parser.parse_args()

if arguments.given:
    *paths, instruction = arguments.given
    shown = [Image.open(path).convert("RGB") for path in paths]
else:
    row = render_row(make_composition(seed=0, index=arguments.seed, split="test", language="en"))
    shown, instruction = row["images"][:2], row["prompt"]
edit = pipeline("image-editing", model=arguments.model, device_map="auto")
edited = edit(instruction, image=[shown], generator=torch.Generator().manual_seed(arguments.seed)).images[0]
sheet = Image.new(
    "RGB", (sum(image.width for image in (*shown, edited)), max(image.height for image in (*shown, edited)))
)
left = 0
for image in (*shown, edited):
    sheet.paste(image, (left, 0))
    left += image.width
sheet.save(arguments.output)
print(f"{instruction}: {arguments.output}, with what was shown on the left")
