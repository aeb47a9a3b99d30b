"""Draws a picture and edits it with OpenAI's client (pip install openai), from a server (`wallaroo serve`):

python examples/client.py
python examples/client.py "a red heart and a blue square" "make the background white" drawing.png
"""

import base64
import os
import sys
from pathlib import Path

from openai import OpenAI

given = sys.argv[1:] or ("a red heart and a blue square", "make the background white", "drawing.png")
prompt, instruction, output = given[0], given[1], Path(given[2])
client = OpenAI(base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"), api_key="none")
drawing = client.images.generate(prompt=prompt, extra_body={"seed": 1}).data[0]
output.write_bytes(base64.b64decode(drawing.b64_json))
edited = client.images.edit(image=output, prompt=instruction).data[0]
output.with_stem(f"{output.stem}-edited").write_bytes(base64.b64decode(edited.b64_json))
print(f"{output} (seed {drawing.seed}), edited (seed {edited.seed})")
