"""Draws a picture with a Show-o2 checkpoint, watches it appear, and asks about it.

python examples/showo2.py "a red fox in the snow" "What animal is it?" --model show-o2 --output fox.png
"""

import argparse

import torch

from wallaroo_hf.showo2 import ShowO2ForConditionalGeneration, ShowO2Processor

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", required=True, help="a converted checkpoint: folder or Hub id")
parser.add_argument("prompt")
parser.add_argument("question")
parser.add_argument("--output", default="drawing.png")
parser.add_argument("--height", type=int, help="in pixels, a multiple of 16; default: the checkpoint's")
parser.add_argument("--width", type=int)
parser.add_argument("--steps", type=int, default=49, help="calls of the model")
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--max-new-tokens", type=int, default=128)
arguments = parser.parse_args()

model = ShowO2ForConditionalGeneration.from_pretrained(arguments.model, dtype="auto", device_map="auto")
processor = ShowO2Processor.from_pretrained(arguments.model)


def show(step) -> None:
    """Saves what the picture is heading for after every tenth step."""
    if step.done % 10 == 0:
        processor.pictures([step.preview()])[0].save(arguments.output)


size = {"height": arguments.height, "width": arguments.width}
inputs = processor(text=[arguments.prompt], generation_mode="image", return_tensors="pt", **size)
drawn = model.draw(
    inputs.to(model.device),
    generators=torch.Generator().manual_seed(arguments.seed),
    follow=show,
    num_inference_steps=arguments.steps,
)
picture = processor.pictures(drawn.pixels)[0]
picture.save(arguments.output)
print(f"Drawn: {arguments.output}")

content = [{"type": "image", "image": picture}, {"type": "text", "text": arguments.question}]
inputs = processor.apply_chat_template(
    [{"role": "user", "content": content}],
    tokenize=True,
    return_dict=True,
    return_tensors="pt",
    add_generation_prompt=True,
).to(model.device)
tokens = model.generate(**inputs, do_sample=False, max_new_tokens=arguments.max_new_tokens)
print(processor.post_process_image_text_to_text(tokens[:, inputs["input_ids"].shape[1] :])[0])
