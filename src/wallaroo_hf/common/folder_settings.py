"""JSON files of a checkpoint, in a folder or on the Hub."""

import json
from typing import Any

from transformers.utils import cached_file

__all__ = ["read_settings"]

_HUB_KWARGS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


def read_settings(checkpoint: Any, name: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    """What a file of a checkpoint says; empty if it is not there.

    Args:
        checkpoint: a folder, or a Hub id.
        name: of the file.
        kwargs: of `from_pretrained`; those about the Hub count.
    """
    path = cached_file(
        checkpoint,
        name,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **{key: kwargs[key] for key in _HUB_KWARGS if key in kwargs},
    )
    if path is None:
        return {}
    with open(path, encoding="utf-8") as file:
        return json.load(file)
