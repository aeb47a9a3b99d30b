"""Other projects' records."""

from __future__ import annotations

import numpy as np
import pytest

from wallaroo_hf.training.data.record_formats import FORMATS, adapt_row, detect_format
from wallaroo_hf.training.data.training_rows import RowError, check_row, row_task

IMAGE = {"type": "image"}


def text(words):
    return {"type": "text", "text": words}


def turn(role, *parts):
    return {"role": role, "content": list(parts)}


def says(role, words):
    return {"role": role, "content": words}


DRAWN = turn("assistant", IMAGE)

CASES = {
    "ours": (
        {
            "messages": [says("user", "a cat"), DRAWN],
            "images": ["c.png"],
            "height": 48,
            "width": None,
            "score": 3,
            "id": 9,
        },
        {"messages": [says("user", "a cat"), DRAWN], "images": ["c.png"], "height": 48, "name": "9"},
    ),
    # table columns have every field in every part
    "TRL, from a table": (
        {
            "messages": [
                turn("user", {"type": "image", "text": None}, text("what?")),
                turn("assistant", {"type": "text", "text": "a cat"}),
            ],
            "images": [{"bytes": b"x", "path": None}],
        },
        {
            "messages": [turn("user", IMAGE, text("what?")), turn("assistant", text("a cat"))],
            "images": [{"bytes": b"x", "path": None}],
        },
    ),
    "TRL, one image": (
        {"messages": [turn("user", IMAGE, text("what?")), says("assistant", "a cat")], "image": "c.png"},
        {"messages": [turn("user", IMAGE, text("what?")), says("assistant", "a cat")], "images": ["c.png"]},
    ),
    "images in their parts": (
        {"messages": [turn("user", {"type": "image", "image": "c.png"}, text("what?")), says("assistant", "a cat")]},
        {"messages": [turn("user", IMAGE, text("what?")), says("assistant", "a cat")], "images": ["c.png"]},
    ),
    "LLaMA-Factory": (
        {"messages": [says("user", "<image>what?"), says("assistant", "a cat")], "images": ["c.png"]},
        {"messages": [turn("user", IMAGE, text("what?")), says("assistant", "a cat")], "images": ["c.png"]},
    ),
    "text about markers": (
        {"messages": [says("user", "what is <image>?"), says("assistant", "a tag")]},
        {"messages": [says("user", "what is <image>?"), says("assistant", "a tag")], "images": []},
    ),
    "LLaVA": (
        {
            "id": "0001",
            "image": "coco/c.jpg",
            "conversations": [
                {"from": "human", "value": "<image>\nWhat is it?"},
                {"from": "gpt", "value": "A cat."},
                {"from": "human", "value": "And behind <image> it?"},
                {"from": "gpt", "value": "A dog."},
            ],
        },
        {
            "messages": [
                turn("user", IMAGE, text("What is it?")),
                says("assistant", "A cat."),
                turn("user", text("And behind"), IMAGE, text("it?")),
                says("assistant", "A dog."),
            ],
            "images": ["coco/c.jpg"],
            "name": "0001",
        },
    ),
    "ShareGPT with a picture as the answer": (
        {
            "conversations": [{"from": "human", "value": "<image> make it blue"}, {"from": "gpt", "value": "<image>"}],
            "images": ["a.png", "b.png"],
            "system": "You draw.",
        },
        {
            "messages": [says("system", "You draw."), turn("user", IMAGE, text("make it blue")), DRAWN],
            "images": ["a.png", "b.png"],
        },
    ),
    "Show-o2": (
        {"path": "c.png", "prompt": "a cat"},
        {"messages": [turn("user", text("a cat")), DRAWN], "images": ["c.png"]},
    ),
    "OmniGen2, drawing": (
        {"task_type": "t2i", "instruction": "a cat", "input_images": None, "output_image": "c.png"},
        {"messages": [turn("user", text("a cat")), DRAWN], "images": ["c.png"]},
    ),
    "OmniGen2, editing": (
        {"task_type": "edit", "instruction": "bluer", "input_images": ["a.png"], "output_image": "b.png"},
        {"messages": [turn("user", IMAGE, text("bluer")), DRAWN], "images": ["a.png", "b.png"]},
    ),
    "captions": (
        {"file_name": "c.png", "text": "a cat", "width": 50},
        {"messages": [turn("user", text("a cat")), DRAWN], "images": ["c.png"]},
    ),
    "questions": (
        {"image": "c.png", "question": "what?", "answer": "a cat"},
        {"messages": [turn("user", IMAGE, text("what?")), says("assistant", "a cat")], "images": ["c.png"]},
    ),
    "questions without an image": (
        {"question": "what?", "answer": "a cat"},
        {"messages": [turn("user", text("what?")), says("assistant", "a cat")], "images": []},
    ),
    "edits": (
        {"source": "a.png", "instruction": "bluer", "image": "b.png"},
        {"messages": [turn("user", IMAGE, text("bluer")), DRAWN], "images": ["a.png", "b.png"]},
    ),
    "edits, whose image is the source": (
        {"image": "a.png", "instruction": "bluer", "edited_image": "b.png"},
        {"messages": [turn("user", IMAGE, text("bluer")), DRAWN], "images": ["a.png", "b.png"]},
    ),
    "edits with further captions": (
        {"original_image": "a.png", "edit_prompt": "bluer", "edited_image": "b.png", "caption": "a cat"},
        {"messages": [turn("user", IMAGE, text("bluer")), DRAWN], "images": ["a.png", "b.png"]},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_records_become_rows(case):
    record, expected = CASES[case]
    before = repr(record)
    assert adapt_row(record) == expected
    assert adapt_row(record, detect_format(record)) == expected
    assert repr(record) == before


def test_every_format_has_a_case_and_gives_sound_rows():
    assert {detect_format(record) for record, _ in CASES.values()} == set(FORMATS) - {"auto"}
    for name, (record, _) in CASES.items():
        if name not in ("ours", "LLaVA"):  # whose size, and whose number of images, are wrong on purpose
            check_row(adapt_row(record))


def test_columns_can_be_named():
    record = {"jpg": b"x", "short": "cat", "caption": "a cat on a mat", "question": "?"}
    row = adapt_row(record, columns={"image": "jpg", "caption": "short"})
    assert row["messages"][0] == turn("user", text("cat")) and row_task(row) == "generation"
    with pytest.raises(RowError, match="no column 'long'; its columns are jpg"):
        adapt_row(record, columns={"image": "jpg", "caption": "long"})


@pytest.mark.parametrize("case", ["captions", "Show-o2", "OmniGen2, editing", "ShareGPT with a picture as the answer"])
def test_size_and_task_can_be_named_for_any_format(case):
    record, expected = CASES[case]
    record = {**record, "h": "384", "w": 640.0, "kind": "interleaved"}
    columns = {key: key for key, value in record.items() if key not in ("h", "w", "kind", "width")}
    assert adapt_row(record, columns=columns) == expected
    row = adapt_row(record, columns={**columns, "height": "h", "width": "w", "task": "kind"})
    assert row == {**expected, "height": 384, "width": 640, "task": "interleaved"}
    assert (type(row["height"]), type(row["width"]), check_row(row)) == (int, int, "interleaved")
    with pytest.raises(RowError, match="height and width are 38 4 and 640"):
        check_row(adapt_row({**record, "h": "38 4"}, columns={**columns, "height": "h", "width": "w"}))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"image": "a", "caption": "b", "hieght": "c"}, "names 'hieght', but 'columns' records have no such column"),
        ({"path": "a", "prompt": "b", "caption": "c"}, "names 'caption', but 'show_o2' records .* have path, prompt"),
        ({"image": "a", "caption": "b", "image_tokens": "c"}, "names 'image_tokens'"),
    ],
)
def test_columns_that_the_format_does_not_read_are_refused(columns, words):
    with pytest.raises(RowError, match=words):
        adapt_row({"a": "x.png", "b": "a cat", "c": 1}, columns=columns)


def test_encoded_pictures_become_arrays():
    tokens, latents = [[1, 2], [3, 4]], np.full((2, 2, 8), 1 / 3, np.float32)
    messages = [turn("user", IMAGE, text("bluer")), DRAWN]
    row = adapt_row(
        {
            "messages": messages,
            "images": [b"x", None],
            "image_tokens": [tokens],
            "source_latents": [latents.tolist()],
        }
    )
    assert row["image_tokens"][0].dtype == np.int64 and row["image_tokens"][0].tolist() == tokens
    assert row["source_latents"][0].dtype == np.float32 and (row["source_latents"][0] == latents).all()
    assert row["images"] == [b"x", None]


@pytest.mark.parametrize(
    ("record", "format", "words"),
    [
        ({"a": 1}, "auto", "Its columns a are of no known format"),
        ({}, "auto", "none"),
        ({"image": "c.png"}, "auto", "no known format"),
        ({"prompt": "a cat"}, "auto", "no known format"),
        ({"source": "a.png", "instruction": "bluer"}, "auto", "no known format"),
        ({"img": "c.png", "text": "a", "prompt": "b"}, "auto", "'text' and 'prompt' could both be the caption"),
        ({"image": "c.png", "caption": "a", "question": "b", "answer": "c"}, "auto", "two ways"),
        ({"image": "a.png", "target": "b.png", "caption": "x"}, "auto", "two ways"),
        ({"image": "c.png", "caption": ["a", "b"]}, "auto", "type list"),
        ({"prompt": "a cat"}, "show_o2", "no 'path'"),
        ({"messages": [], "imges": []}, "auto", "did you mean 'images'"),
        ({"messages": [], "image_token": []}, "auto", "did you mean 'image_tokens'"),
        ({"messages": ["hi"]}, "auto", "not built like a 'messages' record"),
        ({"messages": [says("user", ["x"])]}, "auto", "not built like a 'messages' record"),
        ({"messages": [turn("user", {"type": "image", "image": "a"})], "images": ["b"]}, "auto", "one place"),
        ({"conversations": "hi"}, "auto", "not a list of turns"),
        ({"conversations": ["hi"]}, "auto", "not built like a 'sharegpt' record"),
        ({"conversations": [{"from": "observation", "value": "x"}]}, "auto", "'observation'"),
        ({"task_type": "edit", "instruction": "x", "output_image": "b"}, "auto", "no input_images"),
        ({"task_type": "t2i", "instruction": "x", "input_images": ["a"], "output_image": "b"}, "auto", "t2i"),
        ({"task_type": "t2i", "instruction": "x"}, "omnigen2", "no 'output_image'"),
    ],
)
def test_other_records_are_refused(record, format, words):
    with pytest.raises(RowError) as error:
        adapt_row(record, format)
    assert error.value.reason == "unreadable_row" and words in str(error.value)


@pytest.mark.parametrize(
    "name", ["a\nb", "\udc00", "\x1b[2J", "\u202ea", "x" * 100_000], ids=lambda name: ascii(name)[:20]
)
@pytest.mark.parametrize(
    "record",
    [
        lambda name: {name: 1},
        lambda name: {"question": "Why?", name: 1},
        lambda name: {"conversations": [{"from": name, "value": "Hi."}, {"from": "gpt", "value": "Yes."}]},
        lambda name: {"messages": [{"role": name, "content": "Hi."}], "images": []},
        lambda name: {"messages": [{"role": "user", "content": [{"type": name}]}], "images": []},
        lambda name: {
            "messages": [{"role": "user", "content": "Hi."}],
            "images": [],
            f"{name}_video": 1,
            "video": name,
        },
    ],
    ids=["column", "more", "speaker", "role", "part", "media"],
)
def test_what_is_quoted_of_a_record_stays_on_one_line(name, record):
    """Whatever a record calls its columns and entries, reports can be read, printed and written."""
    with pytest.raises(RowError) as caught:
        check_row(adapt_row(record(name)))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1100
