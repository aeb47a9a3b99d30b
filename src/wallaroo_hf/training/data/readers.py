"""Files to records: lines of jsonl and csv, members of json lists and of tar archives, pictures with a text beside them.

A record keeps what stood in the file as bytes and is parsed on access: one broken line is one broken row, not a data set
that cannot be loaded, and rows may differ in their columns.
"""

import csv
import gzip
import json
import os
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...files.parsing import NestingError, parse_json
from .training_rows import MEDIA_SUFFIXES, RowError

__all__ = [
    *("DATA_SUFFIXES", "PICTURE_SUFFIXES", "RECORD_VERSION", "caption_file", "is_hidden", "parse_record"),
    *("read_records", "record_features"),
]

LINE_SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
TABLE_SUFFIXES = (".csv", ".tsv")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
DATA_SUFFIXES = (*LINE_SUFFIXES, ".json", *TABLE_SUFFIXES, ".tar")
RECORD_VERSION = 3  # to be raised whenever the same file would give other records
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_JSON_MARK = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},]', re.DOTALL)  # a string, which may hold others, or a mark


def record_features() -> Any:
    """The columns of a record: `file`, `name`, `json` (bytes) and, from archives, `pictures`."""
    from datasets import Features, Value

    member = {"field": Value("string"), "bytes": Value("binary")}
    return Features({"file": Value("string"), "name": Value("string"), "json": Value("binary"), "pictures": [member]})


def read_records(files: Sequence[tuple[str, int, int]], version: int = RECORD_VERSION) -> Iterator[dict[str, Any]]:
    """Yields the records of files one by one.

    Args:
        files: `(path, size, time of change)`; only the path is read, the rest tells caches of changed files.
        version: of what is yielded; not read, but tells caches that an older version filled.

    Raises:
        ValueError: for a file that is damaged as a whole; a broken line is a broken record.
    """
    for path, _, _ in files:
        try:
            yield from _records_of(path)
        except (tarfile.TarError, csv.Error, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"'{path}' is damaged or incomplete ({error}); repair it, or get it again.") from error


def _records_of(path: str) -> Iterator[dict[str, Any]]:
    name = os.path.basename(path)
    lower = name.lower()
    if lower.endswith(".tar"):
        yield from _archive(path, name)
        return
    if lower.endswith(LINE_SUFFIXES):
        found = _lines(path)
    elif lower.endswith(".json"):
        found = _members(path)
    elif lower.endswith(TABLE_SUFFIXES):
        found = _table(path, "\t" if lower.endswith(".tsv") else ",")
    else:
        found = _captioned_picture(path)
    for number, data in found:
        yield {"file": path, "name": f"{name}:{number}" if number else name, "json": data, "pictures": None}


def parse_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that a record holds; members of archives are named as by `datasets`: `jpg`, `source.png`, `txt`.

    Raises:
        RowError: `unreadable_row`, if it is not a JSON object.
    """
    try:
        columns = parse_json(record["json"])
    except ValueError as error:  # also what is not UTF-8
        raise RowError(f"It is not JSON that can be read ({error}).", "unreadable_row") from error
    if not isinstance(columns, dict):
        raise RowError(f"It is a JSON {type(columns).__name__}, but must be an object.", "unreadable_row")
    return columns | {picture["field"]: picture["bytes"] for picture in record.get("pictures") or ()}


def _lines(path: str) -> Iterator[tuple[int, bytes]]:
    opener = gzip.open if path.lower().endswith(".gz") else open
    with opener(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            line = (line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line).strip()
            if line:
                yield number, line


def _members(path: str) -> Iterator[tuple[int, bytes]]:
    """The members of one JSON list; a file that does not begin with one is read as lines.

    A member that is nested too deeply is one broken row: where it is parsed, that is said.
    """
    with open(path, "rb") as file:
        start = file.read(64).removeprefix(_BYTE_ORDER_MARK).lstrip()
    if not start.startswith(b"["):
        yield from _lines(path)
        return
    data = Path(path).read_bytes().removeprefix(_BYTE_ORDER_MARK)
    try:
        members = parse_json(data)
    except NestingError:
        yield from enumerate(_split_members(data), start=1)
        return
    except ValueError as error:
        raise ValueError(
            f"'{path}' is not a whole JSON list ({error}); repair it, or write one object a line."
        ) from error
    for number, member in enumerate(members, start=1):
        yield number, _dump(member)


def _split_members(data: bytes) -> Iterator[bytes]:
    """The members of a JSON list as they stand there, told apart by brackets and commas alone."""
    depth = start = 0
    for mark in _JSON_MARK.finditer(data):
        if mark[0] in b"[{":
            depth += 1
            start = mark.end() if depth == 1 else start
        elif mark[0] in b"]}":
            depth -= 1
        ends_list = depth == 0
        if ends_list or (depth == 1 and mark[0] == b","):
            member = data[start : mark.start()].strip()
            if member:
                yield member
            start = mark.end()
        if ends_list:
            return


def _table(path: str, delimiter: str) -> Iterator[tuple[int, bytes]]:
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter)
        for columns in reader:
            # a row that is too long has its rest under None
            yield reader.line_num, _dump({key: value for key, value in columns.items() if key and value != ""})


def is_hidden(path: Path, folder: Path) -> bool:
    """Whether a file, or a folder between it and `folder`, has a name that begins with a dot: what systems keep for
    themselves, such as macOS beside each file on other disks (`._cat.jpg`).
    """
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def caption_file(picture: str | Path) -> Path | None:
    """The text file beside a picture that has its name, whatever the case of its ending; None if there is none."""
    picture = Path(picture)
    endings = (".txt", ".TXT", ".Txt")
    return next((path for path in map(picture.with_suffix, endings) if path.exists()), None)


def _captioned_picture(path: str) -> Iterator[tuple[int, bytes]]:
    columns, text = {"image": os.path.basename(path)}, caption_file(path)
    if text is not None:
        columns["caption"] = text.read_text(encoding="utf-8-sig", errors="surrogateescape").strip()
    yield 0, _dump(columns)


def _archive(path: str, name: str) -> Iterator[dict[str, Any]]:
    """Samples of a WebDataset archive: neighbouring members with the same path up to the first dot of the file's name.

    Members other than pictures, `.txt` and `.json` are left out; of video and audio only the name is kept, which has the
    sample refused.
    """
    key: tuple[str, str] | None = None
    columns: dict[str, Any] = {}
    pictures: list[dict[str, Any]] = []
    with tarfile.open(path, "r|") as archive:
        for member in archive:
            folder, _, base = member.name.rpartition("/")
            stem, _, field = base.partition(".")  # no stem: hidden, such as what macOS keeps
            if not member.isfile() or not stem or not field:
                continue
            if (folder, stem) != key:
                if columns or pictures:
                    yield _sample(path, name, key, columns, pictures)
                key, columns, pictures = (folder, stem), {}, []
            _read_member(archive.extractfile(member), field, columns, pictures)
    if columns or pictures:
        yield _sample(path, name, key, columns, pictures)


def _read_member(file: Any, field: str, columns: dict[str, Any], pictures: list[dict[str, Any]]) -> None:
    suffix = f".{field.rpartition('.')[2].lower()}"
    if suffix in PICTURE_SUFFIXES:
        pictures.append({"field": field, "bytes": file.read()})
    elif suffix == ".txt":
        columns[field] = file.read().decode("utf-8-sig", errors="surrogateescape").strip()
    elif field.lower() == "json":
        columns["json"] = file.read()
    elif suffix.removeprefix(".") in MEDIA_SUFFIXES:
        columns[field] = file.name


def _sample(path: str, name: str, key: Any, columns: dict[str, Any], pictures: list[dict[str, Any]]) -> dict[str, Any]:
    raw = columns.pop("json", None)
    key = "/".join(filter(None, key))
    data = _dump({"__key__": key, **columns})
    if raw is not None:
        try:
            data = _dump({"__key__": key, **columns, "json": parse_json(raw)})
        except ValueError:
            data = raw  # what is wrong with it is said where it is parsed
    return {"file": path, "name": f"{name}:{key}", "json": data, "pictures": pictures}


def _dump(value: Any) -> bytes:
    return json.dumps(value).encode()  # ASCII: bytes that were no UTF-8 survive as escapes, for checks to find
