"""Draws a picture from a text, and shows it growing.

python examples/draw.py
python examples/draw.py "a red fox in the snow" --model wallaroo-7b --output fox.png
"""

import argparse

import torch

from wallaroo_hf import WallarooForConditionalGeneration, WallarooProcessor, default_checkpoint
from wallaroo_hf.generation import ImageStreamer

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default=default_checkpoint(), help="folder or Hub id; default: the built-in checkpoint")
parser.add_argument("prompt", nargs="?", default="a red heart and a blue square")
parser.add_argument("--output", default="drawing.png")
parser.add_argument("--height", type=int, help="in pixels; default: the checkpoint's")
parser.add_argument("--width", type=int)
parser.add_argument("--seed", type=int, default=1)
arguments = parser.parse_args()

model = WallarooForConditionalGeneration.from_pretrained(arguments.model, dtype="auto", device_map="auto")
processor = WallarooProcessor.from_pretrained(arguments.model)


def show(streamer: ImageStreamer, image: int, row: int) -> None:
    """Saves a preview after every fourth row."""
    if row % 4 == 0:
        streamer.preview(image).save(arguments.output)


inputs = processor(
    text=[arguments.prompt],
    generation_mode="image",
    height=arguments.height,
    width=arguments.width,
    return_tensors="pt",
).to(model.device)
tokens = model.generate(
    **inputs,
    generation_mode="image",
    generator=torch.Generator().manual_seed(arguments.seed),
    streamer=ImageStreamer(model, processor, on_row=show),
)
pixels = model.decode_image_tokens(tokens)
processor.post_process_multimodal_output(pixels, generation_mode="image")[0].save(arguments.output)
print(f"Drawn: {arguments.output}")
