"""Data sets open local files only: a path with a scheme (`https://`, `s3://`, `zip://…::…`, `hf://`) is never followed."""

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.request import url2pathname

from ...files.parsing import parse_yaml

__all__ = ["has_scheme", "local_path", "refuse_remote_files"]

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|data:", re.IGNORECASE)  # `C:/` is a drive
_FILE = re.compile(r"file:(?://(?:localhost)?)?(/.*)", re.IGNORECASE | re.DOTALL)


def has_scheme(path: str) -> bool:
    """Whether a path is a URL, or fsspec would take it for one: `ftp://a/b`, `file:///a`, `zip://a::/b.zip`, `data:…`."""
    return _SCHEME.match(path) is not None or "://" in path


def local_path(path: str, folders: Sequence[str | os.PathLike[str]] = (), what: str = "The path") -> str:
    """A path without a scheme as it is; of `file://` URLs the path, if it is in one of some folders.

    Args:
        folders: where `file://` URLs may lead, links followed.
        what: is said to be it in errors.

    Raises:
        ValueError: for every other path with a scheme.
    """
    if not has_scheme(path):
        return path
    shown = repr(path[:200])
    found = _FILE.fullmatch(path)
    if found is None:
        raise ValueError(
            f"{what} {shown} is a URL, but data sets open local files only; download it first and give its path (data sets "
            "on the Hub are named as org/name)."
        )
    local = url2pathname(found[1])
    try:
        real = os.path.realpath(local)
        inside = any(os.path.commonpath([real, top]) == top for top in map(os.path.realpath, folders))
    except ValueError:  # a name that no file can have, or another drive
        inside = False
    if not inside:
        where = " or ".join(f"'{os.fspath(folder)}'" for folder in folders[:2])
        raise ValueError(
            f"{what} {shown} leads out of the data's folder{f' {where}' if where else ''}; give a path without file://."
        )
    return local


def refuse_remote_files(name: str) -> None:
    """Makes sure that a data set on the Hub brings all of its files itself.

    Its card may name `data_files`, which the datasets package would fetch from anywhere, or read from this machine.

    Raises:
        ValueError: naming the first file that is not the data set's own.
    """
    for card in _cards(name):
        for pattern in _data_files(card.get("configs")):
            if has_scheme(pattern) or os.path.isabs(pattern) or ".." in re.split(r"[\\/]", pattern):
                raise ValueError(
                    f"The data set '{name}' names the file {pattern[:200]!r}, which is not its own; only a data set's own "
                    "files are read."
                )


def _cards(name: str) -> Iterator[dict[str, Any]]:
    """What the files say from which the datasets package learns where the data is."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    for file in ("README.md", ".huggingface.yaml"):
        try:
            path = hf_hub_download(name, file, repo_type="dataset")
        except EntryNotFoundError:  # none; or offline, where only what was prepared before is opened
            continue
        with open(path, encoding="utf-8", errors="replace") as opened:
            text = opened.read()
        if file == "README.md":
            head = re.match(r"\s*---\s*\n(.*?)\n---", text, re.DOTALL)
            text = "" if head is None else head[1]
        try:
            card = parse_yaml(text)
        except ValueError as error:
            raise ValueError(
                f"The card of the data set '{name}' is not YAML; only a readable one can be trusted."
            ) from error
        if isinstance(card, dict):
            yield card


def _data_files(value: Any, is_path: bool = False) -> Iterator[str]:
    """Every string under `data_files` and `data_dir`, however nested (`split` and `path`, lists, mappings)."""
    if isinstance(value, str) and is_path:
        yield value
    elif isinstance(value, list):
        for entry in value:
            yield from _data_files(entry, is_path)
    elif isinstance(value, dict):
        for key, entry in value.items():
            if not (is_path and key == "split"):
                yield from _data_files(entry, is_path or key in ("data_files", "data_dir"))
