"""Tells a story in text and pictures: the model decides when to draw (`generation_mode="auto"`).

    python examples/story.py
    python examples/story.py "Tell a short story about a fox, with pictures." --model MODEL --output story

Released weights were never trained to interleave; with them, expect text only.
"""

import argparse
from pathlib import Path

import torch

from wallaroo_hf import WallarooForConditionalGeneration, WallarooProcessor, default_checkpoint

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default=default_checkpoint(), help="folder or Hub id; default: the built-in checkpoint")
parser.add_argument("prompt", nargs="?", default="Draw a red circle.")
parser.add_argument("--output", type=Path, default=Path("story"))
parser.add_argument("--height", type=int, help="in pixels; default: the checkpoint's")
parser.add_argument("--width", type=int)
parser.add_argument("--max-new-tokens", type=int, default=512)
parser.add_argument("--seed", type=int, default=1)
arguments = parser.parse_args()

model = WallarooForConditionalGeneration.from_pretrained(arguments.model, dtype="auto", device_map="auto")
processor = WallarooProcessor.from_pretrained(arguments.model)

inputs = processor.apply_chat_template(
    [{"role": "user", "content": [{"type": "text", "text": arguments.prompt}]}],
    tokenize=True,
    return_dict=True,
    return_tensors="pt",
    add_generation_prompt=True,
    processor_kwargs={"generation_mode": "auto", "height": arguments.height, "width": arguments.width},
).to(model.device)
tokens = model.generate(
    **inputs,
    generation_mode="auto",
    max_new_tokens=arguments.max_new_tokens,
    generator=torch.Generator().manual_seed(arguments.seed),
)

arguments.output.mkdir(parents=True, exist_ok=True)
pictures = 0
for piece in processor.split_output(tokens[0, inputs["input_ids"].shape[1] :]):
    if isinstance(piece, str):
        print(piece)
        continue
    pictures += 1
    path = arguments.output / f"{pictures}.png"
    with torch.no_grad():
        pixels = model.vq_model.decode(torch.from_numpy(piece)[None].to(model.device))
    processor.post_process_multimodal_output(pixels, generation_mode="image")[0].save(path)
    print(f"[{path}]")
