"""Rows with videos: read from every format, checked, laid out and trained on."""

from __future__ import annotations

import json

import datasets
import pytest
import torch

from films import film_frames, write_film
from helpers import picture
from wallaroo_hf.training.collator import WallarooDataCollator
from wallaroo_hf.training.data.record_formats import adapt_row
from wallaroo_hf.training.data.training_rows import RowError, check_row
from wallaroo_hf.training.datasets import load_rows
from wallaroo_hf.training.row_collator import RowCollator
from wallaroo_hf.training.validation import validate_rows

VIDEO, QUESTION = {"type": "video"}, {"type": "text", "text": "What happens?"}
ANSWER = {"role": "assistant", "content": "A bar grows."}
RECORDS = {
    "messages": {"messages": [{"role": "user", "content": [VIDEO, QUESTION]}, ANSWER], "videos": ["a.mp4"]},
    "messages, in the part": {
        "messages": [{"role": "user", "content": [{"type": "video", "video": "a.mp4"}, QUESTION]}, ANSWER]
    },
    "messages, marker": {
        "messages": [{"role": "user", "content": "<video>What happens?"}, ANSWER],
        "videos": ["a.mp4"],
    },
    "LLaVA": {
        "conversations": [
            {"from": "human", "value": "<video>\nWhat happens?"},
            {"from": "gpt", "value": "A bar grows."},
        ],
        "video": "a.mp4",
    },
    "ShareGPT": {
        "conversations": [{"from": "user", "value": "<video>What happens?"}, {"from": "gpt", "value": "A bar grows."}],
        "videos": ["a.mp4"],
    },
    "columns": {"question": "What happens?", "answer": "A bar grows.", "video": "a.mp4"},
    "columns, marker": {"question": "<video>What happens?", "answer": "A bar grows.", "videos": ["a.mp4"]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    write_film(folder / "a.mp4", film_frames(20))
    return folder


@pytest.fixture
def small(processor):
    """A processor that sees small frames."""
    processor.pixel_limits["video"] = {"shortest_edge": 784, "longest_edge": 2 * 784}
    return processor


@pytest.mark.parametrize("record", RECORDS.values(), ids=list(RECORDS))
def test_every_format(folder, small, record):
    (folder / "train.jsonl").write_text(json.dumps(record))
    (row,) = load_rows(folder / "train.jsonl")
    assert row["videos"] == [str(folder / "a.mp4")] and row["images"] == []
    assert [part["type"] for part in row["messages"][0]["content"]] == ["video", "text"]
    assert check_row(row) == "understanding"
    report = validate_rows([row], measure=WallarooDataCollator(small).measure)
    assert report.tasks["understanding"].rows == 1
    batch = WallarooDataCollator(small)([row])
    assert batch["video_grid_thw"].tolist() == [[2, 2, 2]] and batch["second_per_grid_ts"].tolist() == [1.0]
    assert "A bar grows." in small.tokenizer.decode(batch["labels"][batch["labels"] >= 0])


def test_tables(folder, small):
    data = (folder / "a.mp4").read_bytes()
    table = datasets.Dataset.from_dict(
        {"question": ["What?", "Who?"], "answer": ["a", "b"], "video": [{"bytes": data, "path": "a.mp4"}, None]}
    )
    table.to_parquet(folder / "b.parquet")
    for options in ({}, {"streaming": True}):
        first, second = load_rows(folder / "b.parquet", **options)
        assert first["videos"][0]["bytes"] == data and not second.get("videos")
        assert WallarooDataCollator(small)([first, second])["video_grid_thw"].shape == (1, 3)


def test_a_batch_of_all_kinds_trains(small, model):
    user = [{"type": "image"}, VIDEO, QUESTION]
    both = {
        "messages": [{"role": "user", "content": user}, ANSWER],
        "images": [picture(1)],
        "videos": [list(film_frames(4))],
    }
    alone = {
        "messages": [{"role": "user", "content": [VIDEO, VIDEO, QUESTION]}, ANSWER],
        "videos": [film_frames(2), film_frames(3)],
    }
    words = {"messages": [{"role": "user", "content": "Hi"}, ANSWER]}
    collator = WallarooDataCollator(small)
    batch = collator([both, words, alone])
    assert batch["video_grid_thw"][:, 0].tolist() == [2, 1, 2] and len(batch["image_grid_thw"]) == 1
    batch.pop("row_names")
    together = model(**batch)
    losses, counts = [], []
    for row in (both, words, alone):
        one = collator([row])
        one.pop("row_names")
        losses.append(model(**one).loss)
        counts.append(int((one["labels"] >= 0).sum()))
    mean = sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)
    assert torch.allclose(together.loss, mean, atol=1e-4)


def test_rows_without_padding_have_the_same_loss(small, model):
    from wallaroo_hf.training.wallaroo_kit import _without_padding

    rows = [
        {"messages": [{"role": "user", "content": [VIDEO, QUESTION]}, ANSWER], "videos": [film_frames(4)]},
        {"messages": [{"role": "user", "content": [QUESTION]}, ANSWER]},
    ]
    batch = WallarooDataCollator(small)(rows)
    batch.pop("row_names")
    padded = model(**batch).loss
    assert torch.allclose(model(**_without_padding(model.model, batch)).loss, padded, atol=1e-5)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({**RECORDS["messages"], "videos": []}, "video_count"),
        ({**RECORDS["messages"], "videos": ["a.mp4", "b.mp4"]}, "video_count"),
        (
            {
                "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": [VIDEO]}],
                "videos": ["a"],
            },
            "wrong_content",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [VIDEO]},
                    {"role": "assistant", "content": [{"type": "image"}]},
                ],
                "images": [b""],
                "videos": ["a.mp4"],
            },
            "wrong_task",
        ),
        ({"image": "a.png", "caption": "a dog", "video": "a.mp4"}, "unreadable_row"),
        ({"path": "a.png", "prompt": "a dog", "videos": ["a.mp4"]}, "unreadable_row"),
        ({"question": "<video>What?", "answer": "a"}, "wrong_content"),
    ],
)
def test_rows_that_cannot_be(record, reason):
    with pytest.raises(RowError) as caught:
        check_row(adapt_row(record))
    assert caught.value.reason == reason


def test_videos_that_cannot_be_read(folder, small):
    (folder / "broken.mp4").write_bytes(b"no film")
    row = {"messages": RECORDS["messages"]["messages"], "name": "mine"}
    for video, reason in (
        ("nowhere.mp4", "missing_video"),
        ("http://a.b/c.mp4", "missing_video"),
        (str(folder / "broken.mp4"), "broken_video"),
        (None, "missing_video"),
    ):
        report = validate_rows([{**row, "videos": [video]}])
        assert reason in str(report.as_dict())
        with pytest.raises(RowError, match="Row mine cannot be trained on") as caught:
            WallarooDataCollator(small)([{**row, "videos": [video]}])
        assert caught.value.reason == reason
    skipping = WallarooDataCollator(small, on_error="skip")
    assert skipping([{**row, "videos": ["nowhere.mp4"]}])["skipped_rows"] == 1


def test_families_that_train_on_none_say_so(small):
    class Other(RowCollator):
        def _lay_out(self, row, parts, rng):
            raise AssertionError("not asked")

        def _batch(self, encoded):
            raise AssertionError("not asked")

    with pytest.raises(RowError, match="videos are not trained on by models of this family") as caught:
        Other(small)([{**RECORDS["messages"], "videos": [film_frames(2)]}])
    assert caught.value.reason == "unsupported_task"
