"""Paints a part of a picture anew, or what lies beyond its edges; all else stays as it is, to the bit.

python examples/inpaint.py
python examples/inpaint.py photo.png "a wooden bench" --mask mask.png --model wallaroo-7b
python examples/inpaint.py photo.png "more of the lake" --grow left=128,right=128 --model wallaroo-7b
"""

import argparse
from pathlib import Path

import torch
from PIL import Image
from transformers import pipeline

import wallaroo_hf
from wallaroo_hf.pictures.masks import read_growth

EXAMPLE = Path(__file__).with_name("scene.png")

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default=wallaroo_hf.default_checkpoint(), help="default: the built-in checkpoint")
parser.add_argument("image", nargs="?", default=str(EXAMPLE), help="default: a drawing")
parser.add_argument("instruction", nargs="?", default="make the square yellow")
parser.add_argument("--mask", help="white (or transparent) is painted; default: the right half")
parser.add_argument("--grow", help="pixels for all sides, or left=64,right=64; instead of a mask")
parser.add_argument("--output", default="inpaint.png")
parser.add_argument("--seed", type=int, default=1)
arguments = parser.parse_args()

edit = pipeline("image-editing", model=arguments.model, device_map="auto")
source = Image.open(arguments.image).convert("RGB")
if arguments.grow:
    area = {"outpaint": read_growth(arguments.grow, "--grow")}
elif arguments.mask:
    area = {"mask_image": arguments.mask}
else:
    mask = Image.new("L", source.size, "black")
    mask.paste("white", (source.width // 2, 0, *source.size))
    area = {"mask_image": mask}
generator = torch.Generator().manual_seed(arguments.seed)
painted = edit(arguments.instruction, image=source, generator=generator, **area).images[0]
painted.save(arguments.output)
print(f"Painted: {arguments.output}, {painted.width}x{painted.height}")
