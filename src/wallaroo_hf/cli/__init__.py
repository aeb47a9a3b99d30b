"""The `wallaroo` command: one file per command. Importing it imports no torch."""

from .main import app, main

__all__ = ["app", "main"]
