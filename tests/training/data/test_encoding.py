"""Encoding ahead."""

from __future__ import annotations

import io
import json
import shutil

import datasets
import numpy as np
import pyarrow
import pytest
import torch
from PIL import Image

from helpers import picture
from wallaroo_hf.training.collator import WallarooDataCollator
from wallaroo_hf.training.data.encoding import encode_rows
from wallaroo_hf.training.data.encoding_record import EncodingRecord, check_encoded, is_encoded
from wallaroo_hf.training.data.training_rows import RowError, check_row
from wallaroo_hf.training.datasets import load_rows
from wallaroo_hf.training.pictures import open_picture
from wallaroo_hf.training.validation import validate_rows
from wallaroo_hf.training.vq.vq_loading import load_vq_model, tokenizer_hash


@pytest.fixture
def processor(processor):
    """Small sizes; the model cares for none."""
    processor.buckets = [(48, 64), (48, 48), (64, 48)]
    return processor


@pytest.fixture
def vq_model(compact):
    return compact.model.vq_model


@pytest.fixture
def rows(tmp_path):
    """Ten rows of all tasks, among them one with a size of its own."""
    folder = tmp_path / "data"
    folder.mkdir()
    for seed in range(4):
        picture(seed, 70 + 20 * seed, 100).save(folder / f"{seed}.png")
    lines = [
        {"image": "0.png", "caption": "a cat"},
        {"source": "1.png", "target": "2.png", "instruction": "bluer"},
        {"image": "3.png", "question": "what?", "answer": "a cat"},
        {
            "messages": [
                {"role": "user", "content": "wide"},
                {"role": "assistant", "content": [{"type": "image"}]},
            ],
            "images": ["3.png"],
            "height": 32,
            "width": 96,
        },
        *({"image": f"{number % 4}.png", "caption": f"number {number}"} for number in range(4, 10)),
    ]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return load_rows(folder / "train.jsonl")


def without_none(row):
    return {key: value for key, value in row.items() if value is not None}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_codes_are_those_that_training_would_compute(rows, vq_model, processor, tmp_path):
    report = encode_rows(rows, vq_model, processor, tmp_path / "out", batch_size=3, rows_per_shard=4)
    assert report.total == 10 and report.tasks["generation"].rows == 8 and not report.num_broken
    encoded = load_rows(tmp_path / "out")
    for row, before in zip(encoded, rows, strict=True):
        row = without_none(row)
        task = check_row(row)
        assert row["name"] == before["name"] and task == check_row(before)
        if task == "understanding":
            assert open_picture(row["images"][0]).tobytes() == open_picture(before["images"][0]).tobytes()
            assert not {"image_tokens", "source_latents"} & set(row)
            continue
        inputs = processor(
            text=["x"],
            images=[open_picture(before["images"][0])] if task == "editing" else None,
            target_images=[open_picture(before["images"][-1])],
            generation_mode="image",
            height=before.get("height"),
            width=before.get("width"),
            return_labels=True,
            return_tensors="pt",
        )
        expected = vq_model.encode(inputs["target_pixel_values"][0][None])
        assert row["image_tokens"][0].tolist() == expected.image_tokens[0].tolist()
        assert [row["height"], row["width"]] == list(inputs["target_pixel_values"][0].shape[1:])
        assert row["images"][-1] is None
        if task == "editing":
            latents = vq_model.encode(inputs["source_pixel_values"][0][None]).latents[0]
            assert row["source_latents"][0].dtype == np.float32
            # encoded in batches of other pictures, so to within rounding
            torch.testing.assert_close(torch.from_numpy(row["source_latents"][0]), latents, rtol=0, atol=1e-5)
            assert open_picture(row["images"][0]).tobytes() == open_picture(before["images"][0]).tobytes()
    assert {tuple(without_none(row).get("image_tokens", [np.zeros((0, 0))])[0].shape) for row in encoded} >= {
        (2, 6),
        (4, 3),
    }


IMAGE = {"type": "image"}


def chat(*turns, **more):
    """A chat of `(role, parts)`, in which a number is the seed of an image."""
    parts = [(role, [IMAGE if isinstance(part, int) else text(part) for part in content]) for role, content in turns]
    images = [png(part) for _, content in turns for part in content if isinstance(part, int)]
    return {"messages": [{"role": role, "content": content} for role, content in parts], "images": images, **more}


def text(words):
    return {"type": "text", "text": words}


def png(seed):
    buffer = io.BytesIO()
    picture(seed, 80, 60).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def test_training_on_encoded_rows_is_training_on_their_pictures(model, processor, tmp_path):
    """Every layout: the model gets the same numbers, to within rounding, and loses the same."""
    rows = [
        chat(("user", ["a cat"]), ("assistant", [1])),
        chat(("user", [2, "bluer"]), ("assistant", [3])),
        chat(("user", [4, "what?"]), ("assistant", ["a cat"])),
        chat(("user", ["tell"]), ("assistant", ["once", 5, "and then", 6])),
        chat(("user", [7, "what?"]), ("assistant", ["a cat"]), ("user", ["bluer"]), ("assistant", [8])),
        chat(("user", [1, 2, "join"]), ("assistant", [3]), height=32, width=48),
        chat(("user", ["wide"]), ("assistant", [4]), height=32, width=96),
    ]
    rows = [{**row, "name": f"row {place}"} for place, row in enumerate(rows)]
    report = encode_rows(rows, model.vq_model, processor, tmp_path / "out", batch_size=2)
    assert {task: count.rows for task, count in report.tasks.items()} == {
        "generation": 2,
        "editing": 1,
        "understanding": 1,
        "interleaved": 3,
    }
    collator = WallarooDataCollator(processor, unconditional_rate=0.0)
    losses, kinds = [], []
    for found in (rows, load_rows(tmp_path / "out")):
        batch = collator([{**row, "draw": place} for place, row in enumerate(found)])
        assert batch.pop("row_names") == [row["name"] for row in rows]
        kinds.append({"target_pixel_values", "source_pixel_values", "source_latents"} & set(batch))
        with torch.no_grad():
            losses.append(model(**batch).losses)
    assert kinds == [{"target_pixel_values", "source_pixel_values"}, {"source_latents"}]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-5)


def test_the_folder_is_a_data_set_for_everyone(rows, vq_model, processor, tmp_path):
    encode_rows(rows, vq_model, processor, tmp_path / "out", rows_per_shard=4)
    stored = datasets.load_from_disk(tmp_path / "out")
    assert len(stored) == 10 and stored[1]["images"][0].size == (90, 100) and stored[1]["images"][1] is None
    assert stored[0]["messages"][0] == {"role": "user", "content": [{"type": "text", "text": "a cat"}]}
    assert validate_rows(load_rows(tmp_path / "out")).num_broken == 0
    streamed = [without_none(row) for row in load_rows(tmp_path / "out", streaming=True)]
    assert [row["name"] for row in streamed] == [row["name"] for row in rows]
    assert isinstance(streamed[0]["image_tokens"][0], np.ndarray)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 5, 9])
@pytest.mark.parametrize("streaming", [False, True])
def test_an_interrupted_run_continues_and_gives_the_same(rows, vq_model, processor, tmp_path, stop, streaming):
    source = rows if not streaming else [dict(row) for row in rows]
    whole = tmp_path / "whole"
    again = (row for row in source) if streaming else source
    expected = encode_rows(again, vq_model, processor, whole, rows_per_shard=3, batch_size=2)

    def interrupt(done):
        if done == stop:
            raise Stopped

    folder = tmp_path / "out"
    for progress in (interrupt, None):
        again = (row for row in source) if streaming else source
        if progress is None:
            report = encode_rows(again, vq_model, processor, folder, rows_per_shard=3, batch_size=2)
        else:
            with pytest.raises(Stopped):
                encode_rows(again, vq_model, processor, folder, rows_per_shard=3, batch_size=2, progress=progress)
            shards = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.arrow")}
            assert len(shards) == stop // 3 and is_encoded(folder)
            with pytest.raises(ValueError, match="not complete"):
                load_rows(folder)
            with pytest.raises(ValueError, match="not complete"):
                check_encoded(folder, vq_model)
    assert contents(folder) == contents(whole) and report == expected
    assert all((folder / name).stat().st_mtime_ns == time for name, time in shards.items())  # not computed again


def test_threads_and_parts_give_the_same(rows, vq_model, processor, tmp_path):
    whole = encode_rows(rows, vq_model, processor, tmp_path / "whole", rows_per_shard=3)
    encode_rows(rows, vq_model, processor, tmp_path / "threads", rows_per_shard=3, num_workers=3)
    assert contents(tmp_path / "threads") == contents(tmp_path / "whole")
    for number in (1, 0):
        report = encode_rows(rows, vq_model, processor, tmp_path / "parts", rows_per_shard=3, part=(number, 2))
        assert (tmp_path / "parts" / "state.json").exists() == (number == 0)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole") and report == whole
    with pytest.raises(ValueError, match="`part`"):
        encode_rows(rows, vq_model, processor, tmp_path / "parts", part=(2, 2))


def test_broken_rows_stop_or_are_named(rows, vq_model, processor, tmp_path):
    broken = [dict(rows[0]), {**rows[1], "images": ["nowhere.png", *rows[1]["images"][1:]]}, dict(rows[2])]
    with pytest.raises(RowError, match=r"train.jsonl:2: The image 'nowhere.png' does not exist.*--skip-broken"):
        encode_rows(broken, vq_model, processor, tmp_path / "out")
    report = encode_rows(broken, vq_model, processor, tmp_path / "out", on_error="skip")
    assert report.problems["editing"]["missing_image"].examples[0][0] == "train.jsonl:2" and report.total == 3
    assert [row["name"] for row in load_rows(tmp_path / "out")] == ["train.jsonl:1", "train.jsonl:3"]
    encoded = load_rows(tmp_path / "out")
    with pytest.raises(RowError, match="encoded already"):
        encode_rows(encoded, vq_model, processor, tmp_path / "twice")
    with pytest.raises(ValueError, match="`on_error`"):
        encode_rows(rows, vq_model, processor, tmp_path / "other", on_error="ignore")


def test_pictures_in_memory_and_odd_sizes(vq_model, processor, tmp_path):
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": [{"type": "image"}]}]
    rows = [{"messages": messages, "images": [Image.new("L", (30, 30), 9)], "height": None}]
    encode_rows(rows, vq_model, processor, tmp_path / "out")
    assert load_rows(tmp_path / "out")[0]["image_tokens"][0].shape == (3, 3)
    processor.line_breaks = False
    wide = [{"messages": messages, "images": [picture(1)], "height": 32, "width": 64}]
    with pytest.raises(RowError, match=r"row 0: .*square images only"):
        encode_rows(wide, vq_model, processor, tmp_path / "wide")


def test_encoded_data_belongs_to_its_tokenizer_and_sizes(rows, vq_model, model, processor, tmp_path):
    folder = tmp_path / "out"
    encode_rows(rows, vq_model, processor, folder)
    check_encoded(folder, vq_model, processor)
    with torch.no_grad():
        model.vq_model.decoder.conv_in.weight += 1  # what only drawing uses
        check_encoded(folder, model.vq_model, processor)
        model.vq_model.quantize.embedding.weight[3] += 1e-6
    with pytest.raises(ValueError, match="another image tokenizer"):
        check_encoded(folder, model.vq_model)
    processor.buckets = [(64, 64)]
    check_encoded(folder, vq_model)
    with pytest.raises(ValueError, match="other image sizes"):
        check_encoded(folder, vq_model, processor)
    assert is_encoded(folder) and not is_encoded(tmp_path)
    with pytest.raises(ValueError, match="no readable"):
        check_encoded(tmp_path, vq_model)


def test_folders_are_only_continued_by_the_same_job(rows, vq_model, processor, tmp_path):
    folder = tmp_path / "out"
    encode_rows(rows, vq_model, processor, folder, source="train.jsonl")
    before = contents(folder)
    record = EncodingRecord.read(folder)
    assert record.source == "train.jsonl" and record.num_rows == 10 and record.tokenizer == tokenizer_hash(vq_model)
    for change, words in (
        ({"source": "test.jsonl"}, "another `source`"),
        ({"source": "train.jsonl", "rows_per_shard": 5}, "another `rows_per_shard` .512, now 5"),
    ):
        with pytest.raises(ValueError, match=words):
            encode_rows(rows, vq_model, processor, folder, **change)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(ValueError, match="not empty"):
        encode_rows(rows, vq_model, processor, tmp_path / "full")
    assert contents(folder) == before and len(contents(tmp_path / "full")) == 1


def test_a_shard_counts_only_when_it_is_whole(rows, vq_model, processor, tmp_path, monkeypatch):
    """Whatever happens while one is written."""

    def fail(sink, schema):
        sink.write(b"the first bytes")
        raise OSError("the disk is full")

    monkeypatch.setattr(pyarrow.ipc, "new_stream", fail)
    with pytest.raises(OSError, match="full"):
        encode_rows(rows, vq_model, processor, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.arrow")) and not list((tmp_path / "out").glob(".*arrow*"))


def test_pictures_are_encoded_together(rows, vq_model, processor, tmp_path, monkeypatch):
    shapes = []
    whole = type(vq_model).encode
    monkeypatch.setattr(
        type(vq_model), "encode", lambda self, pixels: (shapes.append(tuple(pixels.shape)), whole(self, pixels))[1]
    )
    encode_rows(rows, vq_model, processor, tmp_path / "out", batch_size=3)
    assert sum(shape[0] for shape in shapes) == 10 and max(shape[0] for shape in shapes) == 3


def test_the_tokenizer_is_loaded_alone(compact, vq_model, tmp_path):
    alone = load_vq_model(compact.folder)
    assert tokenizer_hash(alone) == tokenizer_hash(vq_model)
    state = alone.state_dict()
    assert all(torch.equal(state[key], value) for key, value in vq_model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in alone.parameters()) and not alone.training
    vq_model.save_pretrained(tmp_path / "vq")
    assert tokenizer_hash(load_vq_model(tmp_path / "vq")) == tokenizer_hash(vq_model)


def test_only_the_files_that_hold_the_tokenizer_are_read(compact, vq_model, tmp_path):
    compact.model.save_pretrained(tmp_path / "sharded", max_shard_size="200KB")
    index = json.loads((tmp_path / "sharded" / "model.safetensors.index.json").read_text())["weight_map"]
    needed = {file for key, file in index.items() if "vq_model" in key}
    others = set(index.values()) - needed
    assert others
    for file in others:
        (tmp_path / "sharded" / file).unlink()
    assert tokenizer_hash(load_vq_model(tmp_path / "sharded")) == tokenizer_hash(vq_model)
    (tmp_path / "sharded" / sorted(needed)[0]).write_bytes(b"broken")
    for damaged in (tmp_path / "sharded", tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="No image tokenizer could be loaded"):
            load_vq_model(damaged)
    shutil.copytree(compact.base, tmp_path / "qwen")
    with pytest.raises(ValueError, match="qwen2_5_vl model"):
        load_vq_model(tmp_path / "qwen")


def test_offloaded_tokenizers_have_no_hash(model):
    with pytest.raises(ValueError, match="offloaded"):
        tokenizer_hash(model.vq_model.to("meta"))
