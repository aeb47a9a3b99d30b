"""Other values for a stage's settings, from a YAML file and from words of a command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files.parsing import parse_yaml

__all__ = ["read_overrides"]


def read_overrides(path: str | Path | None = None, assignments: list[str] | None = None) -> dict[str, Any]:
    """Overrides from a YAML file and from `key=value` words; the words win.

    Raises:
        ValueError: if the file is not there or no mapping, or a word has no `=`.
    """
    settings: dict[str, Any] = {}
    if path is not None:
        try:
            loaded = parse_yaml(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"The stage settings in {path} could not be read ({str(error).splitlines()[0]}); give a YAML file with "
                "`setting: value` lines."
            ) from error
        if not isinstance(loaded or {}, Mapping):
            raise ValueError(f"The stage settings in {path} are no mapping; write `setting: value` lines.")
        settings |= loaded or {}
    for word in assignments or []:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"'{word}' sets nothing; write setting=value, for example learning_rate=1e-4.")
        try:
            settings[key.strip()] = parse_yaml(value)
        except ValueError as error:
            raise ValueError(
                f"'{word[:200]}' sets no value that can be read ({error}); write it as in YAML, for example "
                "learning_rate=1e-4 or 'buckets=[[512, 512]]'."
            ) from error
    return settings
