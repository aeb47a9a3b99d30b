"""Audio, which is not trained here, and videos where none can stand: no form of row drops them without a word."""

from __future__ import annotations

import csv
import io
import json
import tarfile

import datasets
import pytest

from helpers import picture
from wallaroo_hf.training.collator import WallarooDataCollator
from wallaroo_hf.training.data.mixing import Source, TaskMixture
from wallaroo_hf.training.data.record_formats import adapt_row
from wallaroo_hf.training.data.training_rows import RowError, check_row
from wallaroo_hf.training.datasets import load_rows

ANSWER = {"role": "assistant", "content": "a dog"}


def chat(content, **more):
    return {"messages": [{"role": "user", "content": content}, ANSWER], **more}


def turns(words, **more):
    return {"conversations": [{"from": "human", "value": words}, {"from": "gpt", "value": "a dog"}], **more}


ROWS = {
    "messages, other column": chat("what?", audios=["clip.wav"]),
    "messages, bytes": chat("what?", audio={"bytes": b"RIFF", "path": None}),
    "messages, marker": chat("<video>what?"),
    "messages, marker of a tokenizer": chat("<|AUDIO|>what?"),
    "messages, marker in a part": chat([{"type": "text", "text": "<audio> what?"}]),
    "messages, part of a server": chat([{"type": "input_audio", "input_audio": {"data": "UklG"}}]),
    "messages, field of a part": chat([{"type": "text", "text": "what?", "video": "clip.mp4"}]),
    "messages, part without type": chat([{"video": "clip.mp4"}, {"type": "text", "text": "what?"}]),
    "messages, field": {"messages": [{"role": "user", "content": "what?"}, {**ANSWER, "audio": {"id": "a1"}}]},
    "LLaVA, marker": turns("<video>\nwhat?"),
    "ShareGPT": turns("<image><audio>what?", images=["a.png"], audios=["clip.wav"]),
    "ShareGPT, turn": {
        "conversations": [{"from": "human", "value": "what?", "video": "c.mp4"}, {"from": "gpt", "value": "a"}]
    },
    "columns": {"image": "a.png", "caption": "a dog", "video": "clip.mp4"},
    "columns, marker": {"image": "a.png", "caption": "a dog like in <video>"},
    "columns, path": {"question": "what?", "answer": "a dog", "audio_path": "clip.wav"},
    "Show-o2": {"path": "a.png", "prompt": "a dog", "mp4": "clip.mp4"},
    "OmniGen2": {
        "task_type": "edit",
        "instruction": "bluer",
        "input_images": ["a.png"],
        "output_image": "a.png",
        "videos": ["c"],
    },
}
IDS = list(ROWS)


@pytest.mark.parametrize("record", ROWS.values(), ids=IDS)
def test_every_format_refuses_them_by_the_name_of_the_row(tmp_path, record):
    picture(1).save(tmp_path / "a.png")
    if "bytes" in str(record):
        record = {**record, "audio": {"bytes": "RIFF", "path": None}}
    (tmp_path / "train.jsonl").write_text("\n" + json.dumps(record))
    (row,) = load_rows(tmp_path / "train.jsonl")
    mixture = TaskMixture({"understanding": [Source([row], "train")]})
    with pytest.raises(
        RowError,
        match=r"^train\.jsonl:2: .*(audio is not trained here; leave such rows out|but videos stand in `videos`)",
    ):
        mixture[0]


@pytest.mark.parametrize("record", [ROWS[name] for name in IDS if name.startswith("messages")])
def test_rows_of_ones_own_are_refused_too(processor, record):
    words = "(audio is not trained here|but videos stand in `videos`)"
    with pytest.raises(RowError, match=words):
        check_row(record)
    with pytest.raises(RowError, match=rf"Row mine cannot be trained on: .*{words}"):
        WallarooDataCollator(processor)([{**record, "name": "mine"}])


def test_tables(tmp_path):
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["question", "answer", "video"], ["what?", "a dog", "clip.mp4"], ["who?", "I", ""]]
        )
    seen, unseen = load_rows(tmp_path / "a.csv")
    assert seen["videos"] == [str(tmp_path / "clip.mp4")] and check_row(seen) == "understanding"
    assert check_row(unseen) == "understanding"
    heard = [{"bytes": b"RIFF", "path": None}, None]
    table = datasets.Dataset.from_dict({"question": ["a?", "b?"], "answer": ["a", "b"], "audio": heard})
    table = table.cast_column("audio", datasets.Audio())  # which is not decoded: that would take a package of its own
    table.to_parquet(tmp_path / "b.parquet")
    for source, options in ((tmp_path / "b.parquet", {}), (tmp_path / "b.parquet", {"streaming": True}), (table, {})):
        heard, unheard = load_rows(source, **options)
        assert "It has a 'audio'" in heard["error"]
        assert unheard["messages"][-1]["content"] == "b"


def test_archives(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        buffer = io.BytesIO()
        picture(1).save(buffer, format="PNG")
        for name, data in {
            "1.png": buffer.getvalue(),
            "1.txt": b"a dog",
            "1.mp4": b"ftyp",
            "2.png": b"",
            "2.txt": b"a",
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    seen, unseen = load_rows(tmp_path / "a.tar")
    assert "It has a 'mp4'" in seen["error"]
    assert unseen.get("error") is None and len(unseen["messages"]) == 2


def test_what_is_named_or_only_spelt_alike_is_read():
    record = {
        "image": b"a",
        "caption": "what is a <video src=x> tag? </video>",
        "video": None,
        "audios": [],
        "videos": [None],
    }
    assert check_row(adapt_row(record)) == "generation"
    named = {"image": b"a", "caption": "a dog", "video": "clip.mp4"}
    assert check_row(adapt_row(named, columns={"image": "image", "caption": "caption"})) == "generation"
    assert check_row(adapt_row({"image": b"a", "caption": "b", "video_id": 7, "audience": "all"})) == "generation"
