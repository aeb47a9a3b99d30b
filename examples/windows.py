"""Draws a picture code by code and by windows, and shows which forward decided which code.

python examples/windows.py
python examples/windows.py "a green heart" --seed 5 --output windows.png
"""

import argparse
import colorsys

import torch
from PIL import Image, ImageDraw, ImageFont

import wallaroo_hf

CELL, MARGIN = 48, 16

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("prompt", nargs="?", default="a green heart")
parser.add_argument("--model", default=wallaroo_hf.default_checkpoint(), help="default: the built-in checkpoint")
parser.add_argument("--output", default="windows.png")
parser.add_argument("--size", type=int, default=96, help="height and width in pixels")
parser.add_argument("--window", type=int, default=16)
parser.add_argument("--seed", type=int, default=1)
arguments = parser.parse_args()

model = wallaroo_hf.WallarooForConditionalGeneration.from_pretrained(arguments.model, dtype="float32").eval()
processor = wallaroo_hf.WallarooProcessor.from_pretrained(arguments.model)
size = {"height": arguments.size, "width": arguments.size}
inputs = processor(text=[arguments.prompt], generation_mode="image", return_tensors="pt", **size)


def draw(window: int) -> tuple[torch.Tensor, list[int]]:
    """Ids, and for each code, in the order in which codes are drawn, the number of the forward that decided it."""
    output = model.generate(
        **inputs,
        generation_mode="image",
        generator=torch.Generator().manual_seed(arguments.seed),
        window=window,
        return_dict_in_generate=True,
    )
    decided = enumerate(output.statistics.decided, start=1)
    return output.sequences, [forward for forward, (count,) in decided for _ in range(count)]


def overlay(picture: Image.Image, forwards: list[int]) -> Image.Image:
    """The picture, enlarged, each code's cell tinted and numbered by its forward."""
    columns = picture.width // 16
    large = picture.resize((columns * CELL, len(forwards) // columns * CELL), Image.Resampling.NEAREST).convert("RGBA")
    tint = Image.new("RGBA", large.size)
    pen, font = ImageDraw.Draw(tint), ImageFont.load_default(size=CELL // 3)
    for index, forward in enumerate(forwards):
        top, left = (place * CELL for place in divmod(index, columns))
        red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(forward * 0.382 % 1, 0.85, 0.95))
        pen.rectangle((left, top, left + CELL - 1, top + CELL - 1), (red, green, blue, 80), (255, 255, 255, 200))
        middle = (left + CELL // 2, top + CELL // 2)
        pen.text(middle, str(forward), (0, 0, 0, 255), font, "mm", stroke_width=2, stroke_fill=(255, 255, 255, 230))
    return Image.alpha_composite(large, tint).convert("RGB")


(alone, by_code), (several, by_window) = draw(1), draw(arguments.window)
if not torch.equal(alone, several):
    raise SystemExit("The codes differ.")
picture = processor.post_process_multimodal_output(model.decode_image_tokens(several), generation_mode="image")[0]
panels = [
    (
        "the picture",
        picture.resize((picture.width // 16 * CELL, picture.height // 16 * CELL), Image.Resampling.NEAREST),
    ),
    (f"code by code: {by_code[-1]} forwards", overlay(picture, by_code)),
    (f"windows of {arguments.window}: {by_window[-1]} forwards", overlay(picture, by_window)),
]
width, height = panels[0][1].size
sheet = Image.new("RGB", (len(panels) * (width + MARGIN) + MARGIN, height + 3 * MARGIN + CELL // 3), "white")
for index, (title, panel) in enumerate(panels):
    left = MARGIN + index * (width + MARGIN)
    ImageDraw.Draw(sheet).text((left, MARGIN), title, "black", ImageFont.load_default(size=CELL // 2.5))
    sheet.paste(panel, (left, 2 * MARGIN + CELL // 3))
sheet.save(arguments.output)
print(f"The same {len(by_code)} codes in {by_window[-1]} forwards instead of {by_code[-1]}: {arguments.output}")
