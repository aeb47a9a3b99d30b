"""JSON and YAML that others wrote: what is none, or nested beyond all use, is a `ValueError` in any case."""

import json
from typing import Any

__all__ = ["MAX_NESTING", "NestingError", "parse_json", "parse_yaml"]

MAX_NESTING = 100  # lists and objects in each other; Python's own limit depends on who calls


class NestingError(ValueError):
    """A text with more than `MAX_NESTING` levels."""


def parse_json(text: str | bytes) -> Any:
    """What a JSON text holds.

    Raises:
        NestingError: if it is nested more than `MAX_NESTING` levels deep.
        ValueError: if it is no JSON.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise _too_deep() from error
    opening = ("[", "{") if isinstance(text, str) else (b"[", b"{")
    if sum(map(text.count, opening)) > MAX_NESTING and _is_deeper(value):  # type: ignore[arg-type]
        raise _too_deep()
    return value


def parse_yaml(text: str) -> Any:
    """What a YAML text holds: numbers, words, lists and mappings.

    Raises:
        NestingError: if it is nested too deeply to be read.
        ValueError: if it is no YAML.
    """
    import yaml

    try:
        return yaml.safe_load(text)
    except RecursionError as error:
        raise _too_deep() from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())[:300]) from error


def _is_deeper(value: Any) -> bool:
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MAX_NESTING):
        level = [
            child
            for entry in level
            for child in (entry.values() if isinstance(entry, dict) else entry)
            if isinstance(child, (dict, list))
        ]
    return bool(level)


def _too_deep() -> NestingError:
    return NestingError(f"it is nested more than {MAX_NESTING} levels deep")
