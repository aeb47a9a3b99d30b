"""Draws, edits and answers with the checkpoint that ships in the package, on any laptop, without a network.

python examples/demo.py --output demo
"""

import argparse
import os
import sys
from pathlib import Path

import torch
from PIL import Image

from wallaroo_hf import WallarooForConditionalGeneration, WallarooPipeline, WallarooProcessor, default_checkpoint
from wallaroo_hf.training.reports import contact_sheet

# Of the kinds that the checkpoint does well; what it does not, its scores say (README).
PROMPTS = (
    "a red heart and a blue star",
    "three yellow circles on a black background",
    "一个绿色的三角形和一个紫色的圆环",
    "白色背景上的四个橙色星星",
)
EDIT = "replace the star with a green circle"
QUESTION = "How many circles are there?"
SCALE = 3  # the pictures are small; the sheet shows them larger


def ask(
    model: WallarooForConditionalGeneration, processor: WallarooProcessor, image: Image.Image, question: str
) -> str:
    """The answer to a question about an image."""
    chat = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": question}]}]
    inputs = processor.apply_chat_template(
        chat, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    tokens = model.generate(**inputs, do_sample=False, max_new_tokens=64)
    return processor.post_process_image_text_to_text(tokens[:, inputs["input_ids"].shape[1] :])[0]


def enlarge(image: Image.Image) -> Image.Image:
    """A larger copy for the sheet."""
    return image.resize((image.width * SCALE, image.height * SCALE), Image.Resampling.LANCZOS)


def main() -> None:
    """Runs the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="another checkpoint (default: the one in the package)")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder to write to (default: demo)")
    parser.add_argument("--seed", type=int, default=1, help="image k gets seed + k (default: 1)")
    arguments = parser.parse_args()
    folder = arguments.model or default_checkpoint()
    model = WallarooForConditionalGeneration.from_pretrained(folder, dtype="auto")
    processor = WallarooProcessor.from_pretrained(folder)
    pipe = WallarooPipeline(model=model, processor=processor)

    print("1/3  Drawing four prompts, two in English and two in Chinese ...")
    seeds = [torch.Generator().manual_seed(arguments.seed + index) for index in range(len(PROMPTS))]
    drawings = pipe(list(PROMPTS), generator=seeds).images
    for prompt in PROMPTS:
        print(f"       {prompt}")

    print("2/3  Editing the first of them ...")
    print(f"       {EDIT}")
    edited = pipe(EDIT, image=drawings[0], generator=torch.Generator().manual_seed(arguments.seed)).images[0]

    print("3/3  Asking about the second ...")
    answer = ask(model, processor, drawings[1], QUESTION)
    print(f"       {QUESTION} {answer}")

    captions = [*PROMPTS, f"1, edited: {EDIT}", f"about 2: {QUESTION} — {answer}"]
    images = [enlarge(image) for image in (*drawings, edited, drawings[1])]
    sheet = contact_sheet(images, captions, arguments.output / "demo.png", columns=3)
    command = os.path.relpath(Path(sys.executable).with_name("wallaroo"))
    print(f"\nDone: {sheet}")
    print(f"Try your own: {command} generate 'a purple diamond and a green square'")


if __name__ == "__main__":
    main()
