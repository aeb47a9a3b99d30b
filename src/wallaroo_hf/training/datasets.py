"""Rows from files, folders and the Hub, through `datasets`: mapped from disk, or streamed."""

import contextlib
import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from ..files.whole import FullDiskError, no_space_sentence, require_cache
from .data.local_paths import has_scheme, local_path, refuse_remote_files
from .data.readers import (
    DATA_SUFFIXES,
    PICTURE_SUFFIXES,
    RECORD_VERSION,
    caption_file,
    is_hidden,
    parse_record,
    read_records,
    record_features,
)
from .data.record_formats import FORMATS, adapt_row
from .data.training_rows import TASKS, Row, RowError

__all__ = ["load_rows", "require_datasets"]

ENCODING_RECORD = "wallaroo_encoding.json"
_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


def require_datasets() -> ModuleType:
    """The `datasets` package.

    Raises:
        ImportError: with the command that installs it.
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            'Reading training data needs the datasets package; `pip install "wallaroo-hf[train]"`.'
        ) from error
    return datasets


def load_rows(
    source: Any,
    *,
    format: str = "auto",
    task: str | None = None,
    split: str | None = None,
    config: str | None = None,
    columns: Mapping[str, str] | None = None,
    image_folder: str | os.PathLike[str] | None = None,
    streaming: bool = False,
) -> Any:
    """Reads rows (see [`wallaroo_hf.training.data.training_rows`]) from a file, a folder, the Hub or a data set.

    Pictures stay files or bytes until they are used. A record that cannot be read does not stop the others: it becomes
    a row with `name` and `error`, which the checks report and training refuses. Only local files are opened: paths with a
    scheme are refused, in rows too, except `file://` ones that lead into the folder where the paths of images begin.

    Args:
        source: a `.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet` or `.tar` (WebDataset) file, a pattern of such files, a
            folder (see `docs/data.md`), a Hub id, or a `datasets.Dataset` or `IterableDataset`.
        format: what the records look like, one of `adapters.FORMATS`; `"auto"` looks at each record's columns.
        task: what all rows must be; others then fail the checks.
        split: of the Hub or a saved `DatasetDict`; default `"train"`.
        config: configuration of a data set on the Hub.
        columns: what columns are called, ours -> theirs; see [`wallaroo_hf.training.data.record_formats.adapt_row`].
        image_folder: where relative paths of images begin; default: the folder of the file that holds them (`.parquet`
            files in several folders need it, or paths that are absolute).
        streaming: read from the beginning as needed, instead of into `datasets`' cache on disk.

    Returns:
        `datasets.Dataset`, or with `streaming` `datasets.IterableDataset`, of rows.

    Raises:
        ValueError: if there is nothing to read there, or an argument does not fit it.
        ImportError: if `datasets` is not installed.
    """
    datasets = require_datasets()
    if format not in FORMATS:
        raise ValueError(f"`format` is {format!r}, but must be one of {', '.join(FORMATS)}.")
    if task is not None and task not in TASKS:
        raise ValueError(f"`task` is {task!r}, but must be one of {', '.join(TASKS)}.")
    if image_folder is not None:
        image_folder = local_path(os.fspath(image_folder), what="`image_folder`")
    reader = _RowReader(format, task, dict(columns or {}), image_folder)
    if isinstance(source, (datasets.Dataset, datasets.IterableDataset)):
        if split is not None or config is not None or streaming:
            raise ValueError(
                "`split`, `config` and `streaming` are for data that is yet to be opened; leave them out."
            )
        return _adapted(source, reader)
    path = local_path(os.fspath(source), what="The data")
    files = _find_files(path)
    if files is None and os.path.isdir(path):
        if config is not None:
            raise ValueError(f"`config` is {config!r}, but '{path}' is not on the Hub; leave it out.")
        saved = _load_saved(datasets, path, split)
        return _adapted(
            saved.to_iterable_dataset(min(len(saved), 64) or 1) if streaming else saved, reader.within(path)
        )
    if files is None:
        is_path = (
            path.startswith((".", "/", "~"))
            or path.endswith("/")
            or path.lower().endswith((*DATA_SUFFIXES, ".parquet"))
        )
        if os.path.exists(path) or path.count("/") != 1 or is_path:
            raise ValueError(
                f"There is no data at '{path}'; give a file ({', '.join((*DATA_SUFFIXES, '.parquet'))}), a pattern, "
                "a folder, or a Hub id (org/name)."
            )
        return _adapted(_load_from_hub(datasets, path, config, split, streaming), reader)
    if split is not None or config is not None:
        raise ValueError(f"`split` and `config` choose from the Hub or a saved DatasetDict, but '{path}' is files.")
    return _load_files(datasets, files, reader, streaming)


# ------------------------------------------------------------------------------------------------------- what is there


def _find_files(path: str) -> list[str] | None:
    """The data files of a file, pattern or folder; None for saved data sets and what is not on this disk."""
    if os.path.isfile(path):
        if not path.lower().endswith((*DATA_SUFFIXES, ".jsonl.gz", ".ndjson", ".ndjson.gz", ".parquet")):
            raise ValueError(
                f"'{path}' is of no known type; data files end with {', '.join((*DATA_SUFFIXES, '.parquet'))}."
            )
        return [path]
    if glob.has_magic(path):
        found = sorted(path for path in glob.glob(path, recursive=True) if os.path.isfile(path))  # none that is hidden
        if not found:
            raise ValueError(f"No file fits the pattern '{path}'.")
        return found
    if not os.path.isdir(path) or any(
        os.path.exists(os.path.join(path, name)) for name in ("state.json", "dataset_dict.json", ENCODING_RECORD)
    ):
        return None
    return _files_in_folder(Path(path))


def _files_in_folder(folder: Path) -> list[str]:
    """A metadata file, else the data files (of one type), else pictures."""
    described = [name for name in _METADATA if (folder / name).is_file()]
    if described:
        return [str(folder / described[0])]
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file() and not entry.name.startswith("."))
    kinds: dict[str, list[str]] = {}
    for name in names:
        kind = next(
            (suffix for suffix in (*DATA_SUFFIXES, ".jsonl.gz", ".parquet") if name.lower().endswith(suffix)), None
        )
        if kind is not None:
            kinds.setdefault(kind, []).append(str(folder / name))
    if len(kinds) > 1:
        raise ValueError(
            f"The folder '{folder}' holds {' and '.join(kinds)} files; name one kind, such as "
            f"'{folder}/*{next(iter(kinds))}'."
        )
    if kinds:
        return next(iter(kinds.values()))
    pictures = sorted(
        str(path)
        for path in folder.rglob("*")
        if path.suffix.lower() in PICTURE_SUFFIXES and not is_hidden(path, folder)
    )
    if not any(caption_file(path) for path in pictures):
        raise ValueError(
            f"The folder '{folder}' holds {len(pictures)} pictures, but neither a metadata.jsonl nor .txt files with their "
            "captions; add them, or name a data file."
        )
    return pictures


# ------------------------------------------------------------------------------------------------------------- reading


def _load_files(datasets: ModuleType, files: list[str], reader: "_RowReader", streaming: bool) -> Any:
    are_parquet = {path.lower().endswith(".parquet") for path in files}
    if len(are_parquet) > 1:
        raise ValueError(f"The files are of several kinds ('{files[0]}' and others); name .parquet files apart.")
    if are_parquet == {True}:
        with _writing_cache(datasets, streaming):
            table = datasets.load_dataset("parquet", data_files=files, split="train", streaming=streaming)
        return _adapted(table, reader.within(*dict.fromkeys(os.path.dirname(path) for path in files)))
    stats = [(path, os.stat(path)) for path in files]
    arguments = {
        "files": [(os.path.abspath(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats],
        "version": RECORD_VERSION,
    }
    kind = datasets.IterableDataset if streaming else datasets.Dataset
    with _writing_cache(datasets, streaming):
        records = kind.from_generator(read_records, features=record_features(), gen_kwargs=arguments)
    return _adapted(records, reader, are_records=True)


@contextlib.contextmanager
def _writing_cache(datasets: ModuleType, streaming: bool) -> Iterator[None]:
    """Says what is wrong with a file or with the cache on disk, not that a data set could not be generated.

    Args:
        streaming: the cache must be there, but nothing is written into it.

    Raises:
        ValueError: if a file cannot be read, or the cache not be made.
        FullDiskError: if there is no room.
    """
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    require_cache(cache, "the datasets package", "HF_DATASETS_CACHE", not streaming)
    try:
        yield
    except datasets.exceptions.DatasetGenerationError as error:
        full = no_space_sentence(error, cache)
        if full is not None:
            raise FullDiskError(full) from error
        cause = error.__cause__ or error
        raise ValueError(" ".join(str(cause).split())[:500] or type(cause).__name__) from error


def _load_saved(datasets: ModuleType, folder: str, split: str | None) -> Any:
    if os.path.exists(os.path.join(folder, ENCODING_RECORD)) and not os.path.exists(
        os.path.join(folder, "state.json")
    ):
        raise ValueError(f"The encoded data in '{folder}' is not complete; run the same `wallaroo encode` again.")
    saved = datasets.load_from_disk(folder)
    if not isinstance(saved, datasets.DatasetDict):
        if split is not None:
            raise ValueError(f"`split` is {split!r}, but '{folder}' is one data set without splits.")
        return saved
    if (split or "train") not in saved:
        raise ValueError(f"There is no split {split or 'train'!r} in '{folder}'; it has {', '.join(saved)}.")
    return saved[split or "train"]


def _load_from_hub(datasets: ModuleType, name: str, config: str | None, split: str | None, streaming: bool) -> Any:
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HfHubHTTPError

    require_cache(Path(HF_HUB_CACHE), "the Hub's files", "HF_HUB_CACHE")
    try:
        with _writing_cache(datasets, streaming):
            refuse_remote_files(name)
            return datasets.load_dataset(name, config, split=split or "train", streaming=streaming)
    except FullDiskError:
        raise
    except (OSError, ValueError, HfHubHTTPError) as error:  # not there, no access, no network, no such split
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise ValueError(f"No data set could be loaded from '{name}', a file, folder or Hub id ({reason}).") from error


def _adapted(data: Any, reader: "_RowReader", are_records: bool = False) -> Any:
    """The same data, each record of which is turned into a row when it is read."""
    if isinstance(data, require_datasets().Dataset):
        data = data.with_format(None)  # a copy, whose features may be changed
        data.info.features = _without_decoding(data.features)
        return data.with_transform(partial(_read_batch, reader, are_records))
    if data.features is None:  # a stream whose columns are not known before it is read
        return data.map(partial(_read_over, reader))
    return data.decode(False).map(partial(_read, reader, are_records), remove_columns=list(data.features))


def _without_decoding(feature: Any) -> Any:
    """The same features, whose images are read as `{"bytes", "path"}`; decoding is ours, with limits.

    Video and audio are not decoded either: videos are opened with their rows, and rows with audio are refused.
    """
    datasets = require_datasets()
    if isinstance(feature, (datasets.Image, datasets.Audio, datasets.Video)):
        return replace(feature, decode=False)
    if isinstance(feature, dict):
        return type(feature)({key: _without_decoding(value) for key, value in feature.items()})
    if isinstance(feature, list):
        return [_without_decoding(value) for value in feature]
    if isinstance(feature, (datasets.List, datasets.LargeList)):
        return type(feature)(_without_decoding(feature.feature))
    return feature


def _read(reader: "_RowReader", are_records: bool, record: Mapping[str, Any]) -> Row:
    return reader.read_packed(record) if are_records else reader.read(record)


def _read_over(reader: "_RowReader", record: Mapping[str, Any]) -> Row:
    """As [`_read`], with None in place of the record's own columns, which `map` would keep."""
    return {**dict.fromkeys(record), **reader.read(record)}


def _read_batch(reader: "_RowReader", are_records: bool, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    count = len(next(iter(batch.values()), ()))
    rows = [_read(reader, are_records, {key: values[i] for key, values in batch.items()}) for i in range(count)]
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: [row.get(key) for row in rows] for key in keys}


@dataclass(frozen=True)
class _RowReader:
    """How records of one source become rows."""

    format: str
    task: str | None
    columns: dict[str, str] = field(default_factory=dict)
    image_folder: str | None = None
    folders: tuple[str, ...] = ()  # those in which relative paths might begin, where that cannot be told

    def within(self, folder: str, *others: str) -> "_RowReader":
        """The same, for a source whose relative paths begin at `folder` unless said otherwise.

        Args:
            others: the rows may also be of files in these; then relative paths are refused, as a table does not tell which
                file a row is of.
        """
        if self.image_folder is not None:
            return self
        return replace(self, folders=(folder, *others)) if others else replace(self, image_folder=folder)

    def read_packed(self, record: Mapping[str, Any]) -> Row:
        """Reads what `read_records` gave."""
        try:
            columns = parse_record(record)
        except RowError as error:
            return {**self._failed(error), "name": record["name"]}
        return {**self.within(os.path.dirname(record["file"])).read(columns), "name": record["name"]}

    def read(self, record: Mapping[str, Any]) -> Row:
        """Reads one record; what is wrong with it becomes the row's `error`."""
        try:
            row = adapt_row(record, self.format, self.columns)
            row["images"] = [self._resolve(picture) for picture in row["images"]]
            if row.get("videos"):
                row["videos"] = [self._resolve_video(video) for video in row["videos"]]
        except RowError as error:
            return self._failed(error)
        return row if self.task is None else {**row, "task": self.task}

    def _failed(self, error: RowError) -> Row:
        return {"error": str(error)} if self.task is None else {"error": str(error), "task": self.task}

    def _resolve_video(self, video: Any) -> Any:
        if isinstance(video, (list, tuple)):
            return [self._resolve(frame) for frame in video]
        return self._resolve(video, "video")

    def _resolve(self, picture: Any, kind: str = "image") -> Any:
        if isinstance(picture, str) and has_scheme(picture):
            folders = self.folders if self.image_folder is None else (self.image_folder,)
            try:
                return local_path(picture, folders, f"Its {kind}")
            except ValueError as error:
                raise RowError(str(error), f"missing_{kind}") from error
        if isinstance(picture, str):
            if self.folders and not os.path.isabs(picture):
                raise RowError(
                    f"Its {kind} '{picture}' may be in '{self.folders[0]}' or '{self.folders[1]}', as its table is one of "
                    f"several in {len(self.folders)} folders; give `image_folder`, or read each folder's tables apart.",
                    f"missing_{kind}",
                )
            return os.path.join(self.image_folder or "", picture)  # absolute paths stay as they are
        if isinstance(picture, Mapping) and picture.get("bytes") is None and picture.get("path"):
            return self._resolve(picture["path"], kind)
        return picture
