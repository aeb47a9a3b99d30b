"""Draws from a chat with transformers' any-to-any task, no torchvision needed: `python examples/any_to_any.py`."""

import argparse

from transformers import pipeline

from wallaroo_hf import WallarooAnyToAnyPipeline, default_checkpoint

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default=default_checkpoint())
parser.add_argument("--output", default="drawing.png")
arguments = parser.parse_args()
pipe = pipeline("any-to-any", model=arguments.model, pipeline_class=WallarooAnyToAnyPipeline)
image = pipe(text="a red heart", generation_mode="image")[0]["generated_image"]
image.save(arguments.output)
question = [{"type": "image", "image": image}, {"type": "text", "text": "What colour is the heart?"}]
chat = [{"role": "user", "content": question}]
answer = pipe(text=chat, max_new_tokens=8, return_full_text=False, generate_kwargs={"do_sample": False})
print(answer[0]["generated_text"])
