"""Starts the `wallaroo` command without importing torch first.

A module of its own, because importing `wallaroo_hf` registers the Auto classes, which takes seconds.
"""

import os


def main() -> None:
    """Runs the command line."""
    os.environ["_WALLAROO_HF_REGISTER_LATER"] = "1"
    from wallaroo_hf.cli import main as run

    run()
