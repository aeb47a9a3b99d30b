"""Asks a question about a picture.

python examples/ask.py
python examples/ask.py examples/lake.jpg "Where is this?" --model wallaroo-7b
"""

import argparse
from pathlib import Path

from transformers import TextStreamer

from wallaroo_hf import WallarooForConditionalGeneration, WallarooProcessor, default_checkpoint

EXAMPLE = Path(__file__).with_name("scene.png")

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default=default_checkpoint(), help="folder or Hub id; default: the built-in checkpoint")
parser.add_argument("image", nargs="?", default=str(EXAMPLE), help="default: a drawing")
parser.add_argument("question", nargs="?", default="what colour is the heart?")
parser.add_argument("--max-new-tokens", type=int, default=256)
arguments = parser.parse_args()

model = WallarooForConditionalGeneration.from_pretrained(arguments.model, dtype="auto", device_map="auto")
processor = WallarooProcessor.from_pretrained(arguments.model)

content = [{"type": "image", "image": arguments.image}, {"type": "text", "text": arguments.question}]
inputs = processor.apply_chat_template(
    [{"role": "user", "content": content}],
    tokenize=True,
    return_dict=True,
    return_tensors="pt",
    add_generation_prompt=True,
).to(model.device, dtype=model.dtype)
streamer = TextStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
model.generate(**inputs, do_sample=False, max_new_tokens=arguments.max_new_tokens, streamer=streamer)
