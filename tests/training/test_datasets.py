"""Rows from files, folders and data sets: mapped and streamed alike."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pickle
import re
import sys
import tarfile

import datasets
import pytest
from torch.utils.data import DataLoader

from helpers import picture
from wallaroo_hf.training.data.training_rows import check_row, row_task
from wallaroo_hf.training.datasets import load_rows
from wallaroo_hf.training.pictures import open_picture


def png(seed):
    buffer = io.BytesIO()
    picture(seed).save(buffer, format="PNG")
    return buffer.getvalue()


def caption_of(row):
    content = row["messages"][0]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]}
DRAWING = {
    "messages": [{"role": "user", "content": "a cat"}, {"role": "assistant", "content": [{"type": "image"}]}],
    "images": ["pictures/0.png"],
}
LINES = [
    CHAT,
    DRAWING,
    {"image": "pictures/1.png", "caption": "一只猫"},
    {"path": "pictures/2.png", "prompt": "a dog"},
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    for seed in range(4):
        (tmp_path / "pictures" / f"{seed}.png").write_bytes(png(seed))
    return tmp_path


def both(source, **options):
    """The rows of a source; mapped and streamed they must be the same."""
    mapped, streamed = load_rows(source, **options), load_rows(source, streaming=True, **options)
    assert isinstance(mapped, datasets.Dataset) and isinstance(streamed, datasets.IterableDataset)
    rows = [mapped[index] for index in range(len(mapped))]
    assert list(mapped) == rows
    assert [{key: value for key, value in row.items() if value is not None} for row in streamed] == rows
    return rows


def test_lines_of_any_kind(folder):
    """Differing columns, plain and structured contents, blank and broken lines; names are line numbers."""
    lines = [json.dumps(LINES[0]), "", *(json.dumps(line) for line in LINES[1:]), "{broken", "[1]", '{"a": 1}']
    (folder / "train.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b'\n{"text": "\xff"}')
    rows = both(folder / "train.jsonl")
    assert [row["name"] for row in rows] == [f"train.jsonl:{line}" for line in (1, 3, 4, 5, 6, 7, 8, 9)]
    assert [row_task(row) for row in rows[:4]] == ["understanding", *["generation"] * 3]
    assert caption_of(rows[2]) == "一只猫"
    assert rows[1]["images"] == [str(folder / "pictures" / "0.png")]
    assert open_picture(rows[1]["images"][0]).tobytes() == picture(0).tobytes()
    for row, words in zip(rows[4:], ("not JSON", "list", "columns a are", "not JSON"), strict=True):
        assert set(row) == {"name", "error"} and words in row["error"]


def test_packed_lines_lists_and_tables(folder):
    packed = folder / "train.jsonl.gz"
    packed.write_bytes(gzip.compress("\n".join(map(json.dumps, LINES)).encode()))
    listed = folder / "train.json"
    listed.write_text(json.dumps(LINES, indent=1), encoding="utf-8")
    table = folder / "train.csv"
    table.write_text(
        '\ufefffile_name,text\npictures/1.png,"a ""red"" cat,\nasleep"\npictures/2.png,\n', encoding="utf-8"
    )
    rows = both(packed)
    assert [{**row, "name": ""} for row in both(listed)] == [{**row, "name": ""} for row in rows]
    assert [row["name"] for row in both(listed)] == [f"train.json:{number}" for number in (1, 2, 3, 4)]
    good, bad = both(table)
    assert caption_of(good) == 'a "red" cat,\nasleep' and "file_name" in bad["error"]
    (folder / "train.tsv").write_text("image\tcaption\npictures/1.png\ta cat\n", encoding="utf-8")
    assert caption_of(both(folder / "train.tsv")[0]) == "a cat"
    (folder / "train.json").write_text(json.dumps(LINES[0]) + "\n" + json.dumps(LINES[1]), encoding="utf-8")
    assert [row["name"] for row in both(listed)] == ["train.json:1", "train.json:2"]


def test_tables_keep_their_pictures_undecoded(folder):
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    records = {
        "image": [{"bytes": png(1), "path": None}, {"bytes": b"broken", "path": "b.png"}],
        "caption": ["a", "b"],
    }
    data = datasets.Dataset.from_dict(records, features=features)
    data.to_parquet(folder / "train.parquet")
    rows = both(folder / "train.parquet")
    assert rows[0]["images"] == [{"bytes": png(1), "path": None}]
    assert rows[1]["images"][0]["bytes"] == b"broken"
    assert [{**row, "name": None} for row in load_rows(data)] == [{**row, "name": None} for row in rows]
    assert data.features["image"].decode  # the caller's own data set is as it was
    nested = datasets.Dataset.from_list(
        [{"messages": [DRAWING["messages"][1]], "images": [b"broken"]}],
        features=datasets.Features(
            {
                "messages": [{"role": datasets.Value("string"), "content": [{"type": datasets.Value("string")}]}],
                "images": [datasets.Image()],
            }
        ),
    )
    assert load_rows(nested)[0]["images"][0]["bytes"] == b"broken"


def test_paths_in_tables_begin_at_the_table(folder):
    data = datasets.Dataset.from_dict({"image": ["pictures/1.png"], "caption": ["a cat"]})
    data.to_parquet(folder / "train.parquet")
    assert both(folder / "train.parquet")[0]["images"] == [str(folder / "pictures/1.png")]
    assert both(folder / "train.parquet", image_folder="/data")[0]["images"] == ["/data/pictures/1.png"]


def test_paths_in_tables_of_several_folders_are_not_guessed(folder):
    for number in (1, 2):
        (folder / f"p{number}").mkdir()
        images = ["0.png", str(folder / "pictures/1.png")]
        data = datasets.Dataset.from_dict({"image": images, "caption": [f"cat {number}", f"dog {number}"]})
        data.to_parquet(folder / f"p{number}" / "rows.parquet")
    pattern = str(folder / "*/rows.parquet")
    rows = both(pattern)
    for row in rows[::2]:
        assert "'0.png' may be in" in row["error"] and "2 folders; give `image_folder`" in row["error"]
    assert [row["images"] for row in rows[1::2]] == [[str(folder / "pictures/1.png")]] * 2
    assert [row["images"] for row in both(pattern, image_folder="/data")[::2]] == [["/data/0.png"]] * 2
    assert both(str(folder / "p2/*.parquet"))[0]["images"] == [str(folder / "p2/0.png")]


def test_saved_data_sets(folder):
    data = datasets.Dataset.from_dict({"image": [{"bytes": png(1), "path": None}] * 3, "caption": ["a", "b", "c"]})
    data.save_to_disk(folder / "one")
    assert [caption_of(row) for row in both(folder / "one")] == ["a", "b", "c"]
    datasets.DatasetDict({"train": data, "test": data.select([2])}).save_to_disk(folder / "split")
    assert [caption_of(row) for row in both(folder / "split", split="test")] == ["c"]
    assert len(load_rows(folder / "split")) == 3
    with pytest.raises(ValueError, match="train, test"):
        load_rows(folder / "split", split="val")
    with pytest.raises(ValueError, match="without splits"):
        load_rows(folder / "one", split="test")


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("metadata.jsonl", ("file_name", "text")),
        ("metadata.csv", ("image", "prompt")),
        ("x.jsonl", ("path", "prompt")),
    ],
)
def test_folders_with_metadata(folder, name, columns):
    pairs = [(f"pictures/{seed}.png", f"picture {seed}") for seed in (3, 1)]
    records = [dict(zip(columns, pair)) for pair in pairs]
    if name.endswith("csv"):
        (folder / name).write_text("\n".join(map(",".join, [columns, *pairs])), encoding="utf-8")
    else:
        (folder / name).write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    rows = both(folder)
    assert [caption_of(row) for row in rows] == ["picture 3", "picture 1"]
    assert [check_row(row) for row in rows] == ["generation"] * 2
    assert open_picture(rows[0]["images"][0]).tobytes() == picture(3).tobytes()


def test_folders_with_captions_beside_the_pictures(folder):
    for seed in (0, 2):
        (folder / "pictures" / f"{seed}.txt").write_text(f"picture {seed}\n", encoding="utf-8")
    rows = both(folder / "pictures")
    assert [row["name"] for row in rows] == ["0.png", "1.png", "2.png", "3.png"]
    assert [caption_of(row) for row in rows[::2]] == ["picture 0", "picture 2"]
    assert all("error" in row for row in rows[1::2])  # nothing is left out


def test_archives(folder):
    """WebDataset: fields in json, text and pictures; sources and targets by their names; conversations by numbers."""
    chat = {
        "conversations": [{"from": "human", "value": "<image><image> which?"}, {"from": "gpt", "value": "the first"}]
    }
    members = {
        "a/01.jpg": png(1),
        "a/01.txt": b"a cat\n",
        "a/02.source.png": png(2),
        "a/02.target.png": png(3),
        "a/02.json": json.dumps({"instruction": "bluer"}).encode(),
        "a/02.cls": b"7",
        "a/03.1.png": png(1),
        "a/03.json": json.dumps(chat).encode(),
        "a/03.0.png": png(0),
        "a/04.txt": b"no picture",
        "a/05.png": png(1),
        "a/05.json": b"{broken",
        "a/05.caption.txt": b"broken",
        "README": b"",
    }
    for number in range(2):
        with tarfile.open(folder / f"{number}.tar", "w") as archive:
            for name, data in members.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    rows = both(str(folder / "*.tar"))
    assert load_rows(folder, streaming=True).num_shards == 2
    assert [row["name"] for row in rows[5:]] == [f"1.tar:a/0{number}" for number in (1, 2, 3, 4, 5)]
    for row, task in zip(rows, ("generation", "editing", "understanding")):
        assert check_row(row) == task
    assert caption_of(rows[0]) == "a cat" and rows[1]["images"] == [png(2), png(3)]
    assert rows[2]["images"] == [png(0), png(1)]
    assert "txt" in rows[3]["error"] and "not JSON" in rows[4]["error"]
    named = load_rows(folder / "0.tar", columns={"image": "jpg", "caption": "txt"})
    assert check_row(named[0]) == "generation" and "no column 'jpg'" in named[1]["error"]


def test_archives_as_the_hub_gives_them(folder):
    """`datasets` reads archives itself there: fields are columns, None where a sample lacks them."""
    image = {"bytes": png(1), "path": "01.jpg"}
    records = [
        {
            "__key__": "01",
            "__url__": "x.tar",
            "jpg": image,
            "source.png": None,
            "target.png": None,
            "json": {"text": "a cat"},
        },
        {
            "__key__": "02",
            "__url__": "x.tar",
            "jpg": None,
            "source.png": image,
            "target.png": image,
            "json": {"edit_prompt": "b"},
        },
    ]
    picture_columns = dict.fromkeys(("jpg", "source.png", "target.png"), datasets.Image())
    text = datasets.Value("string")
    features = {"__key__": text, "__url__": text, **picture_columns, "json": {"text": text, "edit_prompt": text}}
    rows = load_rows(datasets.Dataset.from_list(records, features=datasets.Features(features)))
    assert [check_row(row) for row in rows] == ["generation", "editing"]
    assert [row["name"] for row in rows] == ["01", "02"] and rows[1]["images"] == [image, image]


def test_declared_tasks_and_named_columns(folder):
    (folder / "t.jsonl").write_text(json.dumps({"img": "pictures/1.png", "a": "cat", "text": "dog"}), encoding="utf-8")
    (row,) = both(folder / "t.jsonl", task="editing", columns={"image": "img", "caption": "a"}, format="columns")
    assert caption_of(row) == "cat" and row["task"] == "editing"
    with pytest.raises(ValueError, match="declared to be of task 'editing'"):
        check_row(row)
    (row,) = both(folder / "t.jsonl", task="editing", format="messages")
    assert row["task"] == "editing" and "error" in row  # reports count it there


def test_changed_files_are_read_again(folder):
    path = folder / "t.jsonl"
    for words in ("a cat", "a dog"):
        path.write_text(json.dumps({"image": "x.png", "caption": words}), encoding="utf-8")
        os.utime(path, ns=(0, len(words) + ord(words[2])))
        assert caption_of(both(path)[0]) == words


def test_rows_travel_to_workers(folder):
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, LINES)), encoding="utf-8")
    rows = load_rows(folder / "t.jsonl")
    again = pickle.loads(pickle.dumps(rows))
    assert [again[index] for index in range(4)] == [rows[index] for index in range(4)]
    loaded = next(iter(DataLoader(rows, batch_size=4, num_workers=1, collate_fn=list)))
    assert [{key: value for key, value in row.items() if value is not None} for row in loaded] == list(rows)
    assert rows.select([2, 1])[0] == rows[2]


def test_streams_whose_columns_are_unknown():
    def records():
        yield {"task": "vqa", **DRAWING}

    (row,) = load_rows(datasets.IterableDataset.from_generator(records))
    assert {key: value for key, value in row.items() if value is not None} == {**DRAWING, "task": "vqa"}
    (row,) = load_rows(
        datasets.IterableDataset.from_generator(records), columns={"messages": "messages", "images": "images"}
    )
    assert row["task"] is None  # not among the columns that were named


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("nowhere.jsonl", {}, "There is no data at"),
        ("nowhere/", {}, "There is no data at"),
        ("data/nowhere.parquet", {}, "There is no data at"),
        ("notes.md", {}, "of no known type"),
        ("*.jsonl", {}, "No file fits"),
        ("empty", {}, "0 pictures"),
        ("pictures", {}, "4 pictures, but neither"),
        ("mixed", {}, "holds .jsonl and .csv files"),
        ("mixed/*", {}, "several kinds"),
        ("broken.json", {}, "not a whole JSON list"),
        ("org/name", {}, "No data set could be loaded from 'org/name'"),
        ("mixed/a.jsonl", {"split": "test"}, "`split`"),
        ("mixed/a.jsonl", {"format": "llava"}, "`format` is 'llava'"),
        ("mixed/a.jsonl", {"task": "drawing"}, "`task` is 'drawing'"),
    ],
)
def test_what_cannot_be_read_is_refused(folder, monkeypatch, source, options, words):
    monkeypatch.chdir(folder)
    for name in ("empty", "mixed", "data"):
        (folder / name).mkdir()
    for name in ("notes.md", "mixed/a.jsonl", "mixed/b.csv"):
        (folder / name).write_text("x", encoding="utf-8")
    datasets.Dataset.from_dict({"a": [1]}).to_parquet(folder / "mixed" / "c.parquet")
    if source == "mixed":
        (folder / "mixed" / "c.parquet").unlink()
    (folder / "broken.json").write_text('[{"a": 1}', encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        load_rows(source, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.tar", "a.jsonl.gz", "a.parquet", "a.csv"])
def test_damaged_files_are_named(folder, name):
    path = folder / name
    if name.endswith("tar"):
        with tarfile.open(path, "w") as archive:
            archive.add(folder / "pictures" / "0.png", "0.png")
    elif name.endswith("gz"):
        path.write_bytes(gzip.compress(json.dumps(CHAT).encode()))
    elif name.endswith("csv"):
        csv.field_size_limit(131_072)  # the default, which some packages raise when they are imported
        path.write_text('image,caption\nx.png,"' + "x" * 200_000 + '"\n', encoding="utf-8")
    else:
        datasets.Dataset.from_dict({"a": [1]}).to_parquet(path)
    whole = path.read_bytes()
    path.write_bytes(whole if name.endswith("csv") else whole[: len(whole) // 3])
    with pytest.raises(ValueError, match=r"damaged|[Pp]arquet"):
        load_rows(path)


def test_arguments_that_would_be_ignored_are_refused(folder):
    data = datasets.Dataset.from_dict({"image": ["x.png"], "caption": ["a"]})
    data.save_to_disk(folder / "saved")
    for source, options in (
        (data, {"streaming": True}),
        (data, {"split": "test"}),
        (folder / "saved", {"config": "en"}),
    ):
        with pytest.raises(ValueError, match="leave"):
            load_rows(source, **options)


def test_without_the_datasets_package(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r'pip install "wallaroo-hf\[train\]"'):
        load_rows(folder)
