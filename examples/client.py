"""Draws a picture and edits it, over HTTP, with OpenAI's client (pip install openai).

wallaroo serve    # in another terminal
python examples/client.py "a red heart to the left of a blue star" "turn the blue star pink"
"""

import argparse
import base64
from pathlib import Path

from openai import OpenAI

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("prompt")
parser.add_argument("instruction")
parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
parser.add_argument("--output", type=Path, default=Path("drawing.png"))
arguments = parser.parse_args()

client = OpenAI(base_url=arguments.url, api_key="none")
drawing = client.images.generate(prompt=arguments.prompt, extra_body={"seed": 1}).data[0]
arguments.output.write_bytes(base64.b64decode(drawing.b64_json))
edited = client.images.edit(image=arguments.output, prompt=arguments.instruction).data[0]
arguments.output.with_stem(f"{arguments.output.stem}-edited").write_bytes(base64.b64decode(edited.b64_json))
print(f"{arguments.output} (seed {drawing.seed}), edited (seed {edited.seed})")
