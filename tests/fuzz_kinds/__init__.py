"""What can be fuzzed, one module a kind."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from golden import GoldenSet

    from .kind import Kind

KINDS = ("chats", "inputs", "layout", "rows", "pictures", "converter", "server")


def make_kind(name: str, golden: GoldenSet, folder: Path) -> Kind:
    """What makes up and judges the rounds of a kind.

    Args:
        name: one of `KINDS`.
        golden: the model that is tried.
        folder: an empty place for files.
    """
    module = importlib.import_module(f".{name}", __package__)  # the server's needs packages that others do not
    return getattr(module, name.capitalize())(golden, folder)
