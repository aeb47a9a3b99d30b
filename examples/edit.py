"""Edits a picture; the result has its size.

python examples/edit.py
python examples/edit.py examples/lake.jpg "make it winter" --model wallaroo-7b --output winter.png
"""

import argparse
from pathlib import Path

import torch
from PIL import Image

from wallaroo_hf import WallarooForConditionalGeneration, WallarooProcessor, default_checkpoint

EXAMPLE = Path(__file__).with_name("scene.png")

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default=default_checkpoint(), help="folder or Hub id; default: the built-in checkpoint")
parser.add_argument("image", nargs="?", default=str(EXAMPLE), help="default: a drawing")
parser.add_argument("instruction", nargs="?", default="make the square yellow")
parser.add_argument("--output", default="edit.png")
parser.add_argument("--seed", type=int, default=1)
arguments = parser.parse_args()

model = WallarooForConditionalGeneration.from_pretrained(arguments.model, dtype="auto", device_map="auto")
processor = WallarooProcessor.from_pretrained(arguments.model)

source = Image.open(arguments.image)
inputs = processor(
    text=[arguments.instruction], images=[source], generation_mode="image", source_fit="pad", return_tensors="pt"
)
tokens = model.generate(
    **inputs.to(model.device), generation_mode="image", generator=torch.Generator().manual_seed(arguments.seed)
)
images = processor.post_process_multimodal_output(model.decode_image_tokens(tokens), generation_mode="image")
processor.fit_back(images, [source], "pad")[0].save(arguments.output)
print(f"Edited: {arguments.output}")
