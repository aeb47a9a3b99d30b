"""`data.yaml`: which data a training run mixes, and from where."""

import difflib
import glob
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..files.parsing import parse_yaml
from .data.local_paths import local_path
from .data.mixing import Source, TaskMixture
from .data.stream_mixing import StreamMixture
from .data.training_rows import TASKS, Row, RowError, row_task
from .datasets import load_rows, require_datasets

__all__ = ["DataEntry", "are_map_style", "load_sources", "mix_rows", "named_rows", "read_data_config"]


@dataclass(frozen=True)
class DataEntry:
    """One entry of `data.yaml`.

    Attributes:
        path: file, folder, pattern or Hub id; relative paths begin at the folder of `data.yaml`. Nothing with a scheme,
            but a `file://` URL in that folder.
        task: the task of all its rows; None: each row's own (not for streams).
        format, split, config, columns, image_folder, streaming: see [`wallaroo_hf.training.datasets.load_rows`].
        weight: share of its task's rows; None for every entry of a task: each row counts the same.
    """

    path: str
    task: str | None = None
    format: str = "auto"
    weight: float | None = None
    split: str | None = None
    config: str | None = None
    columns: Mapping[str, str] | None = None
    image_folder: str | None = None
    streaming: bool = False


def read_data_config(path: str | Path) -> list[DataEntry]:
    """Reads a `data.yaml`: a list of entries, each with the keys of [`DataEntry`].

    Raises:
        ValueError: if it is not such a list; unknown keys are named, with the nearest known one.
    """
    path = Path(path)
    try:
        entries = parse_yaml(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also what is not UTF-8
        raise ValueError(f"'{path}' is not YAML that can be read ({error}).") from error
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"'{path}' must hold a list of entries, such as `- path: train.jsonl`.")
    return [_read_entry(entry, f"entry {number} of '{path}'", path.parent) for number, entry in enumerate(entries, 1)]


def _read_entry(entry: Any, where: str, folder: Path) -> DataEntry:
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        raise ValueError(f"There is no `path` in {where}; each entry is like `- path: train.jsonl`.")
    known = [field.name for field in fields(DataEntry)]
    for key in entry:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean `{close[0]}`?" if close else f"known are {', '.join(known)}."
            raise ValueError(f"There is a key `{key}` in {where}; {hint}")
    weight, columns = entry.get("weight"), entry.get("columns")
    if weight is not None and (isinstance(weight, bool) or not isinstance(weight, (int, float)) or weight < 0):
        raise ValueError(f"The `weight` in {where} is {weight!r}, but must be a number of at least 0.")
    if columns is not None and not isinstance(columns, dict):
        raise ValueError(f"The `columns` in {where} must be a mapping, ours to theirs, such as `caption: long_text`.")
    if entry.get("task") not in (None, *TASKS):
        raise ValueError(f"The `task` in {where} is {entry['task']!r}, but must be one of {', '.join(TASKS)}.")
    if not isinstance(entry.get("streaming", False), bool):
        raise ValueError(f"The `streaming` in {where} is {entry['streaming']!r}, but must be true or false.")
    found = {key: value for key, value in entry.items() if value is not None}
    for key in ("path", "image_folder"):
        if key in found:
            path = local_path(str(found[key]), (folder,), f"The `{key}` in {where},")
            found[key] = _beside(folder, path)
    return DataEntry(**found)


def _beside(folder: Path, path: str) -> str:
    """A path as `data.yaml` means it; what is not there may be a Hub id, and is left as it is."""
    return str(folder / path) if glob.has_magic(path) or (folder / path).exists() else path


def load_sources(entries: Sequence[DataEntry]) -> dict[str, list[Source]]:
    """Loads what `data.yaml` names, by task.

    Entries without `task` are divided by the tasks of their rows. Unreadable rows are put with the task most frequent in
    the entry, where the checks find them: nothing is left out.

    Raises:
        ValueError: if an entry cannot be loaded, or is streamed and has no `task`.
    """
    sources: dict[str, list[Source]] = {}
    for entry in entries:
        rows = load_rows(
            entry.path,
            format=entry.format,
            task=entry.task,
            split=entry.split,
            config=entry.config,
            columns=entry.columns,
            image_folder=entry.image_folder,
            streaming=entry.streaming,
        )
        name = Path(entry.path).name
        if entry.task is None and entry.streaming:
            raise ValueError(f"'{entry.path}' is streamed, so its rows cannot be sorted by task; set its `task`.")
        by_task = {entry.task: rows} if entry.task is not None else split_by_task(rows)
        for task, found in by_task.items():
            sources.setdefault(task, []).append(Source(found, name, entry.weight))
    return sources


def named_rows(sources: Mapping[str, Sequence[Source]]) -> Iterator[Row]:
    """The rows of all sources one after the other, for checks; those without a name are called after their source."""
    for found in sources.values():
        for source in found:
            for index, row in enumerate(source.rows):
                present = {key: value for key, value in row.items() if value is not None}
                yield {"name": f"{source.name}[{index}]", **present}


def split_by_task(rows: Any) -> dict[str, Any]:
    """Map-style rows (`datasets.Dataset`) by their tasks; see [`load_sources`]. Messages are read, pictures are not."""
    require_datasets()
    indices: dict[str, list[int]] = {task: [] for task in TASKS}
    odd: list[int] = []
    for index, row in enumerate(rows):
        try:
            indices.get(row_task(row), odd).append(index)
        except RowError:
            odd.append(index)
    largest = max(TASKS, key=lambda task: len(indices[task]))
    indices[largest] = sorted(indices[largest] + odd)
    return {task: rows.select(found) for task, found in indices.items() if found}


def mix_rows(
    rows: Mapping[str, Any], ratio: Mapping[str, float] | None = None, seed: int = 0, **options: Any
) -> TaskMixture | StreamMixture:
    """Mixes rows by task: `mix_rows({"generation": a, "understanding": b}, ratio={"generation": 4, "understanding": 1})`.

    Args:
        rows: task -> rows, or a list of [`wallaroo_hf.training.data.mixing.Source`] as [`load_sources`] gives.
        ratio: task -> share of rows; 0 leaves a task out. Default: the tasks' numbers of rows.
        seed: of the order.
        options: for [`wallaroo_hf.training.data.mixing.TaskMixture`], or, where any source is streamed, for
            [`wallaroo_hf.training.data.stream_mixing.StreamMixture`].
    """
    sources = {task: _as_sources(task, found) for task, found in rows.items()}
    kind = TaskMixture if are_map_style(sources, ratio) else StreamMixture
    return kind(sources, ratio, seed, **options)


def are_map_style(sources: Mapping[str, Sequence[Source]], ratio: Mapping[str, float] | None = None) -> bool:
    """Whether all rows that take part can be had by number; streams only come one after the other."""
    taking_part = [s for task, found in sources.items() if ratio is None or ratio.get(task) for s in found]
    return all(hasattr(source.rows, "__len__") for source in taking_part)


def _as_sources(task: str, rows: Any) -> list[Source]:
    if isinstance(rows, (list, tuple)) and rows and all(isinstance(item, Source) for item in rows):
        return list(rows)
    return [Source(rows, task)]
