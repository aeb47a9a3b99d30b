"""`data.yaml`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import datasets
import pytest

from helpers import training_rows
from wallaroo_hf.training.data.mixing import TaskMixture
from wallaroo_hf.training.data.stream_mixing import StreamMixture
from wallaroo_hf.training.data.training_rows import row_task
from wallaroo_hf.training.sources import DataEntry, load_sources, mix_rows, named_rows, read_data_config
from wallaroo_hf.training.validation import validate_rows


def write(folder, name, records):
    (folder / name).write_text("\n".join(map(json.dumps, records)), encoding="utf-8")


def rows(task, count):
    return [{**row, "images": ["x.png"] * len(row["images"])} for row in training_rows(task, count)]


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "drawings.jsonl", [{"image": f"{i}.png", "caption": f"picture {i}"} for i in range(6)])
    write(tmp_path, "more.jsonl", [{"path": f"{i}.png", "prompt": f"picture {i}"} for i in range(4)])
    write(tmp_path, "mixed.jsonl", [*rows("editing", 3), *rows("understanding", 2), {"no": "row"}])
    return tmp_path


def config(folder, text):
    path = folder / "data.yaml"
    path.write_text(text, encoding="utf-8")
    return read_data_config(path)


def test_entries(folder):
    entries = config(
        folder,
        """
        - path: drawings.jsonl
          task: generation
          weight: 2
        - path: "*.tar"
          streaming: true
          columns: {caption: long_text}
          image_folder: pictures
        - path: org/name
          split: validation
          config: en
          format: sharegpt
        """,
    )
    assert entries == [
        DataEntry(str(folder / "drawings.jsonl"), task="generation", weight=2),
        DataEntry(str(folder / "*.tar"), streaming=True, columns={"caption": "long_text"}, image_folder="pictures"),
        DataEntry("org/name", split="validation", config="en", format="sharegpt"),
    ]


def test_rows_are_sorted_by_their_own_task(folder):
    """Those of no task stay, where the checks will find them."""
    sources = load_sources(config(folder, "[{path: mixed.jsonl}, {path: drawings.jsonl}, {path: more.jsonl}]"))
    assert {task: [(s.name, len(s.rows)) for s in found] for task, found in sources.items()} == {
        "understanding": [("mixed.jsonl", 2)],
        "generation": [("drawings.jsonl", 6), ("more.jsonl", 4)],
        "editing": [("mixed.jsonl", 4)],
    }
    mixture = mix_rows(sources, {"understanding": 1, "generation": 2, "editing": 1}, length=20, on_error="skip")
    assert isinstance(mixture, TaskMixture)
    assert Counter(row_task(row) for row in mixture) == {"understanding": 5, "generation": 10, "editing": 5}
    assert {row["name"] for row in mixture} > {f"drawings.jsonl:{line}" for line in range(1, 7)}
    assert any("mixed.jsonl:6" in words for row in mixture for words in row.get("skipped", ()))


def test_weights_are_shares_of_the_task(folder):
    text = "[{path: drawings.jsonl, weight: 1}, {path: more.jsonl, weight: 3}, {path: mixed.jsonl}]"
    mixture = mix_rows(
        load_sources(config(folder, text)), {"understanding": 1, "generation": 1, "editing": 0}, length=80
    )
    found = Counter(Path(row["name"].partition(":")[0]).stem for row in mixture)
    assert found == {"mixed": 40, "drawings": 10, "more": 30}


def test_all_rows_can_be_checked(folder):
    """Every row of every source, under a name by which it can be found."""
    datasets.Dataset.from_list([{"question": "what?", "answer": ""}] * 2).to_parquet(folder / "table.parquet")
    sources = load_sources(config(folder, "[{path: mixed.jsonl}, {path: table.parquet, task: understanding}]"))
    names = [row["name"] for row in named_rows(sources)]
    assert sorted(names) == [*(f"mixed.jsonl:{line}" for line in range(1, 7)), "table.parquet[0]", "table.parquet[1]"]
    report = validate_rows(named_rows(sources), decode=False)
    assert report.total == 8 and report.problems["understanding"]["no_answer"].examples[0][0] == "table.parquet[0]"


def test_streams(folder):
    text = "[{path: drawings.jsonl, task: generation, streaming: true}, {path: mixed.jsonl}]"
    sources = load_sources(config(folder, text))
    ratio = {"generation": 1, "editing": 0, "understanding": 0}
    assert isinstance(mix_rows(sources, ratio), StreamMixture)
    with pytest.raises(ValueError, match="set its `task`"):
        load_sources(config(folder, "[{path: drawings.jsonl, streaming: true}]"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path: a.jsonl", "must hold a list"),
        ("", "must hold a list"),
        ("- a.jsonl", "no `path` in entry 1 of"),
        ("[{path: a}, {task: editing}]", "no `path` in entry 2"),
        ("- {path: a, wieght: 2}", "key `wieght` in entry 1.*did you mean `weight`"),
        ("- {path: a, 7: 2}", "key `7`.*known are path, task"),
        ("- {path: a, weight: -1}", "`weight`.* -1, but"),
        ("- {path: a, weight: true}", "`weight`.* True, but"),
        ("- {path: a, task: draw}", "`task`.*'draw', but must be one of understanding, generation, editing"),
        ("- {path: a, columns: caption}", "`columns`"),
        ("- {path: a, streaming: 'no'}", "`streaming`.*'no'"),
        ("- {path: 'a", "is not YAML"),
    ],
)
def test_mistakes_are_named(folder, text, words):
    with pytest.raises(ValueError, match=words):
        config(folder, text)
