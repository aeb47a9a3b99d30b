"""Encoding ahead: codes of pictures to draw and latents of images to edit, so that training need not compute them.

The result is a data set on disk (`datasets.load_from_disk` opens it) of rows with `image_tokens` and `source_latents`.
It is written shard by shard; a run that was interrupted continues after its last whole shard, and the result is the same.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...families.registry import kit_of
from ...families.training_kit import RowEncoder
from ...files.whole import new_file
from ..datasets import ENCODING_RECORD
from ..pictures import open_picture, stored_picture
from ..validation import ValidationReport, task_or_unknown
from .encoded_table import as_table, encoded_features
from .encoding_record import EncodingRecord, check_encoded, is_encoded, shortened, write_json
from .training_rows import Row, RowError, check_row, picture_roles, row_name, row_task
from .worker_threads import in_order

__all__ = ["EncodingRecord", "check_encoded", "encode_rows", "is_encoded"]


def encode_rows(
    rows: Any,
    codec: Any,
    processor: Any,
    output: str | Path,
    *,
    source: str = "",
    batch_size: int = 8,
    rows_per_shard: int = 512,
    on_error: str = "raise",
    num_workers: int = 0,
    part: tuple[int, int] = (0, 1),
    progress: Callable[[int], None] | None = None,
) -> ValidationReport:
    """Encodes rows into a folder.

    Sizes are chosen as the processor does: a row's `height` and `width`, else the size nearest to the picture, or in
    interleaved rows the most square one; images to edit are brought to the same size. Images that the model looks at are
    copied as they are.

    Args:
        rows: rows, map-style or streamed.
        codec: the image tokenizer, on the device to compute on.
        processor: the checkpoint's processor.
        output: folder; a new one, or one that the same call has begun.
        source: what the rows are, in words; a continued run must say the same.
        batch_size: pictures of one size that are encoded together.
        rows_per_shard: rows per file; at most so many are computed again after an interruption.
        on_error: what to do about a broken row: `"raise"`, or `"skip"`, which leaves it out and names it in the report.
        num_workers: threads that read pictures; 0 = this one.
        part: `(k, n)`: encode every n-th shard from the k-th on; n processes fill one folder together.
        progress: called with the number of rows done.

    Returns:
        The report on all shards that are there, those of earlier runs and other parts included.

    Raises:
        ValueError: if the folder holds something else; `RowError` for a broken row under `"raise"`.
    """
    encoder = kit_of(codec, "encode").encoder(codec, processor)
    job = _Job(encoder, Path(output), batch_size, on_error, num_workers)
    num_rows = len(rows) if hasattr(rows, "__len__") else None
    record = EncodingRecord(
        encoder.fingerprint, encoder.size_multiple, encoder.sizes, source, num_rows, rows_per_shard, batch_size
    )
    if not 0 <= part[0] < part[1]:
        raise ValueError(f"`part` is {part}, but must be (k, n) with k from 0 to n - 1.")
    _claim(job.folder, record)
    done = num_shards = 0
    for number, count, members in _slices(rows, rows_per_shard):
        num_shards = number + 1
        if number % part[1] == part[0] and not _shard_path(job.folder, number).exists():
            job.write_shard(number, members, None if progress is None else partial(_progress_from, progress, done))
        done += count
        if progress is not None:
            progress(done)
    return _finish(job.folder, num_shards, encoder)


def _progress_from(progress: Callable[[int], None], start: int, done: int) -> None:
    progress(start + done)


def _slices(rows: Any, size: int) -> Iterator[tuple[int, int, Iterable[Row]]]:
    """Shards as `(number, number of rows, rows)`; rows know their index by name."""
    if hasattr(rows, "__len__"):
        for number in range(math.ceil(len(rows) / size)):
            indices = range(number * size, min(len(rows), (number + 1) * size))
            yield number, len(indices), (_named(rows[index], index) for index in indices)
        return
    stream = (_named(row, index) for index, row in enumerate(rows))
    for number in itertools.count():
        # read whether it is encoded or not: the next shard begins behind it
        members = list(itertools.islice(stream, size))
        if not members:
            return
        yield number, len(members), members


def _named(row: Row, index: int) -> Row:
    return {**{key: value for key, value in row.items() if value is not None}, "name": row_name(row, index)}


# --------------------------------------------------------------------------------------------------------- one shard


class _Job:
    """Writes shards."""

    def __init__(
        self,
        encoder: RowEncoder,
        folder: Path,
        batch_size: int,
        on_error: str,
        num_workers: int,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"`on_error` is {on_error!r}, but must be 'raise' or 'skip'.")
        self.encoder, self.folder = encoder, folder
        self.batch_size, self.on_error, self.num_workers = batch_size, on_error, num_workers
        self.features = encoded_features(encoder.columns)

    def write_shard(self, number: int, rows: Iterable[Row], progress: Callable[[int], None] | None) -> None:
        """Encodes rows and writes them: first the report, then the data, which makes the shard count."""
        import pyarrow as pa

        report = ValidationReport()
        entries = self._encode(rows, report, progress)
        table = as_table(entries, self.features.arrow_schema, self.encoder.columns)
        write_json(_shard_path(self.folder, number).with_suffix(".json"), report.as_dict())
        with (
            new_file(_shard_path(self.folder, number)) as path,
            pa.OSFile(str(path), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema) as writer,
        ):
            writer.write_table(table, max_chunksize=64)

    def _encode(
        self, rows: Iterable[Row], report: ValidationReport, progress: Callable[[int], None] | None
    ) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        waiting: dict[tuple[int, ...], list[_Picture]] = {}
        for index, (row, prepared) in enumerate(in_order(self._prepare, rows, self.num_workers)):
            if progress is not None:
                progress(index)
            if isinstance(prepared, ValueError):
                if self.on_error == "raise":
                    reason = prepared.reason if isinstance(prepared, RowError) else "unusable_row"
                    raise RowError(
                        f"{row['name']}: {prepared} Repair it, or leave such rows out (on_error='skip', --skip-broken).",
                        reason,
                    ) from prepared
                report.note(task_or_unknown(row), prepared, row["name"], index)
                continue
            entry, pictures = prepared
            for picture in pictures:
                queue = waiting.setdefault(picture.pixels.shape, [])
                queue.append(picture)
                if len(queue) == self.batch_size:
                    self._run(queue)
                    queue.clear()
            report.count(row_task(row), row["name"])
            entries.append(entry)
        for queue in waiting.values():
            if queue:
                self._run(queue)
        return entries

    def _prepare(self, row: Row) -> "tuple[dict[str, Any], list[_Picture]]":
        """The columns of a row, and the pictures whose results are still to be put into them."""
        if any(column in row for column in self.encoder.columns):
            raise RowError("It is encoded already.", "wrong_encoding")
        task, roles = check_row(row, size_multiple=self.encoder.size_multiple), picture_roles(row)
        if row.get("videos"):
            raise RowError("It has videos, which are not encoded ahead; train on it as it is.", "unsupported_task")
        entry: dict[str, Any] = {name: row.get(name) for name in self.features}
        entry["messages"] = [_plain_message(message) for message in row["messages"]]
        drawn = [picture for role, picture in zip(roles, row["images"]) if role == "assistant"]
        shown = [picture for role, picture in zip(roles, row["images"]) if role != "assistant"]
        stored = iter([stored_picture(picture) for picture in shown])
        entry["images"] = [None if role == "assistant" else next(stored) for role in roles]
        opens = ([partial(open_picture, picture) for picture in pictures] for pictures in (drawn, shown))
        size, planned = self.encoder.plan(row, task, *opens)
        if size is not None:
            entry["height"], entry["width"] = size
        return entry, [self._picture(entry, column, pixels) for column, pixels in planned]

    def _picture(self, entry: dict[str, Any], column: str, pixels: np.ndarray) -> "_Picture":
        """A picture at its size, and an empty entry in the row for its result."""
        entry[column] = [*(entry[column] or ()), None]
        return _Picture(entry, column, len(entry[column]) - 1, pixels)

    def _run(self, pictures: "list[_Picture]") -> None:
        pixels = torch.from_numpy(np.stack([picture.pixels for picture in pictures]))  # (B, 3, H, W)
        with torch.inference_mode():
            results = self.encoder.encode(pixels)
        for index, picture in enumerate(pictures):
            picture.entry[picture.column][picture.slot] = results[picture.column][index].cpu().numpy()


@dataclass(frozen=True)
class _Picture:
    """Pixels `(3, H, W)` to encode, and where the result belongs."""

    entry: dict[str, Any]
    column: str
    slot: int
    pixels: np.ndarray


def _plain_message(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose content is a list of parts with the same fields, as columns of a table must be."""
    content = message["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return {"role": message["role"], "content": [{"type": p["type"], "text": p.get("text")} for p in parts]}


# --------------------------------------------------------------------------------------------------------- the folder


def _claim(folder: Path, record: EncodingRecord) -> None:
    """Makes a folder this job's, or finds that it is already; several parts may do so at once."""
    if not is_encoded(folder):
        is_free = not folder.exists() or (folder.is_dir() and all(p.name.startswith(".") for p in folder.iterdir()))
        if not is_free and not is_encoded(folder):
            raise ValueError(
                f"The output '{folder}' already exists and is not empty; choose another folder or remove it."
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / ENCODING_RECORD, asdict(record))
    found = EncodingRecord.read(folder)
    for field in fields(record):
        before, now = getattr(found, field.name), getattr(record, field.name)
        if before != now:
            raise ValueError(
                f"The output '{folder}' was begun with another `{field.name}` ({shortened(before)}, now "
                f"{shortened(now)}); continue it with the same settings, or choose another folder."
            )


def _finish(folder: Path, num_shards: int, encoder: RowEncoder) -> ValidationReport:
    """Makes the folder a data set once every shard is there, and sums up the reports."""
    from datasets import DatasetInfo

    present = [number for number in range(num_shards) if _shard_path(folder, number).exists()]
    report = ValidationReport()
    for number in present:
        text = _shard_path(folder, number).with_suffix(".json").read_text(encoding="utf-8")
        report.merge(ValidationReport.from_dict(json.loads(text)))
    if len(present) == num_shards and num_shards:
        DatasetInfo(features=encoded_features(encoder.columns)).write_to_directory(str(folder))
        state: dict[str, Any] = {
            "_data_files": [{"filename": _shard_path(folder, number).name} for number in present],
            "_fingerprint": EncodingRecord.read(folder).tokenizer[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        write_json(folder / "state.json", state)
    return report


def _shard_path(folder: Path, number: int) -> Path:
    return folder / f"data-{number:06}.arrow"
