"""The data set: random access, balance, and the form that `datasets` gets."""

import collections
import json
import pickle
import sys

import numpy as np
import pytest

from wallaroo_hf.scenes import SceneDataset, build_dataset, make_row, render_row
from wallaroo_hf.scenes.tasks import CATEGORIES


def test_rows_are_at_their_index_whatever_the_length():
    rows = SceneDataset("validation", 20, seed=7)
    assert len(rows) == 20 and len(list(rows)) == 20
    assert rows[3] == rows[3] == SceneDataset("validation", 5, seed=7)[3] == rows[-17] == rows[2:4][1]
    assert rows[3] != SceneDataset("validation", 20, seed=8)[3] != SceneDataset("train", 20, seed=8)[3]
    for index in (20, -21):
        with pytest.raises(IndexError):
            rows[index]
    assert pickle.loads(pickle.dumps(rows))[3] == rows[3]  # goes to the workers of a loader


def test_pictures_are_made_only_if_wanted():
    row = SceneDataset(num_rows=3, images=False)[2]
    assert "images" not in row
    with_images = SceneDataset(num_rows=3)[2]
    assert with_images == render_row(row) and with_images["images"]
    assert (
        make_row(0, 2, task_weights={"generation": 1})
        == SceneDataset(num_rows=3, tasks=["generation"], images=False)[2]
    )


def test_tasks_and_languages_can_be_chosen():
    rows = SceneDataset(num_rows=60, tasks={"editing": 1, "generation": 5}, languages="zh", images=False)
    counts = collections.Counter(row["task"] for row in rows)
    assert set(counts) == {"editing", "generation"} and counts["generation"] > 2 * counts["editing"]
    assert {row["language"] for row in rows} == {"zh"}


def test_a_balanced_data_set_has_equally_many_of_each():
    rows = SceneDataset("test", 48, tasks="generation", images=False, balanced=True)
    cells = collections.Counter((row["category"], row["language"]) for row in rows)
    assert set(cells.values()) == {4} and len(cells) == 12
    rows = SceneDataset("test", 21, balanced=True, languages=["en"], images=False)
    assert {(row["task"], row["category"]) for row in rows} == {(t, c) for t in CATEGORIES for c in CATEGORIES[t]}


@pytest.mark.parametrize("balanced", [False, True])
def test_tasks_of_weight_0_are_left_out(balanced):
    weights = {"editing": 2, "generation": 0, "understanding": 2}
    rows = SceneDataset("test", 40, tasks=weights, languages=["en"], images=False, balanced=balanced)
    assert {row["task"] for row in rows} == {"editing", "understanding"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "dev"}, "unknown split in .*use train, validation, test"),
        ({"tasks": ["drawing"]}, "unknown task in"),
        ({"tasks": []}, "unknown task in"),
        ({"languages": "fr"}, "unknown language in"),
        ({"num_rows": -1}, "must not be negative"),
        ({"tasks": {"editing": 0}}, "at least 0, and one more"),
        ({"tasks": {"editing": 1, "generation": -1}}, "at least 0, and one more"),
        (
            {"tasks": {"editing": 2, "generation": 1}, "balanced": True},
            "equally often, but the weights .*'editing': 2",
        ),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SceneDataset(**arguments)


def test_without_datasets_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"needs `datasets`: run `pip install wallaroo-hf\[train\]`"):
        build_dataset()


def _same(found, row):
    """Whether a row came back from `datasets` as it was made."""
    messages = [
        {
            "role": turn["role"],
            "content": [{k: v for k, v in part.items() if v is not None} for part in turn["content"]],
        }
        for turn in found["messages"]
    ]
    assert messages == row["messages"]
    for key in ("scene", "target_scene", "spec", "combinations"):
        assert json.loads(found[key]) == row[key]
    assert [found[key] for key in ("task", "category", "language")] == [
        row[key] for key in ("task", "category", "language")
    ]
    assert all(np.array_equal(one, other) for one, other in zip(found["images"], row["images"], strict=True))


def test_the_datasets_form_has_the_same_rows(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")  # in the dev extra
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
    rows = SceneDataset("test", 12, seed=1, balanced=True)
    table = build_dataset("test", 12, seed=1, balanced=True)
    assert len(table) == 12 and table.split == "test"
    stream = build_dataset("test", 12, seed=1, balanced=True, streaming=True)
    for found, streamed, row in zip(table, stream, rows, strict=True):
        _same(found, row)
        _same(streamed, row)
    assert stream.num_shards == 12  # as many workers can share the work
