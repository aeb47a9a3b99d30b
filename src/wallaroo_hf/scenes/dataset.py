"""The scenes as a data set: plain Python with random access, and as a `datasets` data set."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .splits import SPLITS
from .tasks import CATEGORIES, TASK_WEIGHTS, TASKS, Row, make_row, render_row
from .words import LANGUAGES

if TYPE_CHECKING:
    import datasets

# raise it with any change that changes rows or pictures, so that no stale cache is read
DATA_VERSION = "1.1.0"
_NUM_SHARDS = 64
_JSON_COLUMNS = ("scene", "target_scene", "spec", "combinations")


class SceneDataset(Sequence[Row]):
    """The rows 0 to `num_rows - 1` of a seed and split; each is made when it is asked for. See `tasks` for their format.

    Args:
        split: one of `splits.SPLITS`; they differ by what is combined, not only by seed.
        num_rows: how many rows; the first rows of a longer data set are the same.
        seed: another seed gives other rows.
        tasks: the tasks and how often each comes, in any unit (0 leaves one out); or their names, for equal shares.
            `tasks.TASK_WEIGHTS` if None.
        languages: whose rows are made, in equal shares.
        images: whether rows have their pictures; without, they are made some ten times faster.
        balanced: deals tasks, categories and languages out in turn instead of by chance, as a benchmark wants. `tasks` then
            only chooses; None are all.

    Raises:
        ValueError: for an unknown name, a negative number of rows, weights of which none is positive, or weights that
            differ together with `balanced`.
    """

    def __init__(
        self,
        split: str = "train",
        num_rows: int = 10_000,
        seed: int = 0,
        tasks: Mapping[str, float] | Sequence[str] | None = None,
        languages: Sequence[str] = LANGUAGES,
        images: bool = True,
        balanced: bool = False,
    ) -> None:
        names = list(TASK_WEIGHTS if tasks is None else [tasks] if isinstance(tasks, str) else tasks)
        languages = [languages] if isinstance(languages, str) else list(languages)
        for kind, given, known in (
            ("split", [split], SPLITS), ("task", names, TASKS), ("language", languages, LANGUAGES),
        ):  # fmt: skip
            if not given or not set(given) <= set(known):
                raise ValueError(f"unknown {kind} in {given}: use {', '.join(known)}")
        if num_rows < 0:
            raise ValueError(f"`num_rows` must not be negative, and {num_rows} is")
        self.split, self.num_rows, self.seed, self.images = split, num_rows, seed, images
        weights = tasks if isinstance(tasks, Mapping) else TASK_WEIGHTS if tasks is None else dict.fromkeys(names, 1.0)
        if min(weights.values()) < 0 or not any(weights.values()):
            raise ValueError(
                f"the weights of `tasks` must be at least 0, and one more than that; they are {dict(weights)}"
            )
        self.task_weights = {task: weight for task, weight in weights.items() if weight}
        if balanced and tasks is not None and len(set(self.task_weights.values())) > 1:
            raise ValueError(
                f"`balanced` deals every category out equally often, but the weights of `tasks` are {self.task_weights}; "
                "give the names of the tasks, or leave `balanced` out"
            )
        self.languages = languages
        self.balanced = balanced

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = range(self.num_rows)[index]  # counts from the end, and raises IndexError, as a list does
        row = make_row(self.seed, at, self.split, **self._cell(at))
        return render_row(row) if self.images else row

    def __iter__(self) -> Iterator[Row]:
        return (self[at] for at in range(self.num_rows))

    def _cell(self, at: int) -> dict[str, Any]:
        """What is fixed about a row: with `balanced` all, else the language only where there is but one."""
        if not self.balanced:
            language = self.languages[0] if len(self.languages) == 1 else None
            return {"task_weights": self.task_weights, "language": language}
        turn, which = divmod(at, len(self.languages))
        cells = [(task, category) for task in self.task_weights for category in CATEGORIES[task]]
        task, category = cells[turn % len(cells)]
        return {"task": task, "category": category, "language": self.languages[which]}


def build_dataset(
    split: str = "train",
    num_rows: int = 10_000,
    seed: int = 0,
    tasks: Mapping[str, float] | Sequence[str] | None = None,
    languages: Sequence[str] = LANGUAGES,
    balanced: bool = False,
    streaming: bool = False,
) -> datasets.Dataset | datasets.IterableDataset:
    """The same rows as a `datasets` data set, ready for `map`, `push_to_hub` and TRL.

    Its columns are those of [`tasks.make_row`] and `images`; `scene`, `target_scene`, `spec` and `combinations`, which
    differ in form from row to row, are JSON strings, and `text` is None in content that is an image.

    Args:
        split: as of [`SceneDataset`], and so are the next five.
        num_rows: see there.
        seed: see there.
        tasks: see there.
        languages: see there.
        balanced: see there.
        streaming: an `IterableDataset`, which makes rows as they are read, in 64 shards for as many workers; otherwise the
            rows are written to `datasets`' cache once.

    Raises:
        ImportError: if `datasets` is not installed.
        ValueError: see [`SceneDataset`].
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError("`build_dataset` needs `datasets`: run `pip install wallaroo-hf[train]`") from error
    rows = SceneDataset(split, num_rows, seed, tasks, languages, balanced=balanced)
    text = datasets.Value("string")
    columns = {
        "messages": [{"role": text, "content": [{"type": text, "text": text}]}],
        "images": datasets.Sequence(datasets.Image()),
    } | dict.fromkeys(("task", "category", "language", "prompt", *_JSON_COLUMNS), text)
    edges = [num_rows * part // _NUM_SHARDS for part in range(_NUM_SHARDS + 1)]
    shards = [(start, stop) for start, stop in itertools.pairwise(edges) if start < stop]
    features = datasets.Features(columns)
    source = {"rows": rows, "shards": shards, "version": DATA_VERSION}
    if streaming:
        return datasets.IterableDataset.from_generator(_arrow_rows, features, gen_kwargs=source)
    return datasets.Dataset.from_generator(_arrow_rows, features, gen_kwargs=source, split=datasets.NamedSplit(split))


def _arrow_rows(rows: SceneDataset, shards: Sequence[tuple[int, int]], version: str) -> Iterator[dict[str, Any]]:
    """The rows of some ranges of indices, in the form of the columns; the version only tells caches apart."""
    for start, stop in shards:
        for row in rows[start:stop]:
            messages = [
                {"role": turn["role"], "content": [{"text": None, **part} for part in turn["content"]]}
                for turn in row["messages"]
            ]
            yield {**row, "messages": messages, **{key: json.dumps(row[key]) for key in _JSON_COLUMNS}}
