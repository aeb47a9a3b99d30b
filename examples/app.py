"""Serves the web page of a model that is in memory already: `python examples/app.py`, then open what it prints."""

import argparse
from pathlib import Path

from wallaroo_hf import WallarooForConditionalGeneration, WallarooProcessor, default_checkpoint
from wallaroo_hf.web.app import launch
from wallaroo_hf.web.app_engine import Engine

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default=default_checkpoint())
arguments = parser.parse_args()
model = WallarooForConditionalGeneration.from_pretrained(arguments.model, dtype="auto")
processor = WallarooProcessor.from_pretrained(arguments.model)
page, address = launch(Engine(model, processor, "mine", Path("pictures")), "127.0.0.1", port=None, open_browser=False)
print(f"Serving at {address}")
page.block_thread()
