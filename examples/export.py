"""Writes a checkpoint for the Hub, and its understanding half as Qwen2.5-VL: `python examples/export.py`."""

import argparse
from pathlib import Path

from wallaroo_hf import default_checkpoint
from wallaroo_hf.conversion import CardEntries, export_hub, export_qwen

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default=default_checkpoint())
parser.add_argument("--output", type=Path, default=Path("exported"))
arguments = parser.parse_args()
print(export_hub(arguments.model, arguments.output / "hub", entries=CardEntries(license="apache-2.0")))
print(export_qwen(arguments.model, arguments.output / "qwen2.5-vl"))
