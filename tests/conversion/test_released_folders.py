"""Folders as `save_pretrained` of diffusers wrote them: one file, or shards with an index that must be right."""

from __future__ import annotations

import json

import pytest
import torch

from wallaroo_hf.conversion import released_folders
from wallaroo_hf.conversion.released_folders import find_folder, load_folder, released_keys

PARTS = ({"a": torch.ones(2), "b": torch.zeros(3)}, {"c": torch.full((2, 2), 5.0)})
INDEX = "pytorch_model.bin.index.json"


def shard(number, total=2):
    return f"pytorch_model-{number:05d}-of-{total:05d}.bin"


@pytest.fixture
def folder(tmp_path):
    """Two shards with their index."""
    (tmp_path / "config.json").write_text('{"_class_name": "Thing"}', encoding="utf-8")
    for number, part in enumerate(PARTS, 1):
        torch.save(part, tmp_path / shard(number))
    set_index(tmp_path, {"a": shard(1), "b": shard(1), "c": shard(2)})
    return tmp_path


def set_index(folder, places):
    (folder / INDEX).write_text(json.dumps({"weight_map": places}), encoding="utf-8")


def refused(folder, *words):
    with pytest.raises(ValueError) as caught:
        load_folder(folder, "checkpoint")
    message = str(caught.value)
    assert all(word in message for word in words) and "\n" not in message and message.endswith("."), message


def test_all_weights_are_found(folder):
    released = load_folder(folder, "checkpoint")
    assert released.settings == {"_class_name": "Thing"} and len(released.files) == 2
    assert {name: value.tolist() for name, value in released.tensors.items()} == {
        name: value.tolist() for part in PARTS for name, value in part.items()
    }
    for value in released.tensors.values():
        for file in released.files:
            file.checksums.check(value)
    assert released_keys(folder) == {"a", "b", "c"}
    assert load_folder(folder / "config.json", "checkpoint").tensors.keys() == {"a", "b", "c"}


def test_one_file_counts_before_shards(folder):
    torch.save({"d": torch.ones(1)}, folder / "pytorch_model.bin")
    assert load_folder(folder, "checkpoint").tensors.keys() == {"d"}


def test_shards_without_an_index_must_all_be_there(folder):
    (folder / INDEX).unlink()
    assert load_folder(folder, "checkpoint").tensors.keys() == {"a", "b", "c"}
    (folder / shard(1)).unlink()
    refused(folder, "lacks shard 1 of 2")
    (folder / shard(2)).unlink()
    refused(folder, "neither pytorch_model.bin nor")


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ({"a": shard(1), "b": shard(1), "c": shard(3)}, shard(3)),
        ({"a": shard(1), "b": shard(1), "c": "../other.bin"}, "../other.bin"),
        ({"a": shard(1), "b": shard(1), "c": shard(2), "d": shard(2)}, "`d` is not in"),
        ({"a": shard(1), "c": shard(2)}, "`b` of pytorch_model-00001-of-00002.bin is not in the index"),
        ({}, "does not say"),
        ({"a": 1}, "does not say"),
        ([], "does not say"),
    ],
    ids=str,
)
def test_an_index_that_is_wrong_is_refused(folder, places, words):
    (folder.parent / "other.bin").write_bytes((folder / shard(2)).read_bytes())
    set_index(folder, places)
    refused(folder, words)


def test_a_weight_in_two_shards_is_refused(folder):
    torch.save({"c": torch.ones(1), "a": torch.ones(2)}, folder / shard(2))
    (folder / INDEX).unlink()
    refused(folder, "`a` is in two files")


def test_damaged_files_are_refused(folder):
    content = (folder / shard(2)).read_bytes()
    (folder / shard(2)).write_bytes(content[: len(content) // 2])
    refused(folder, shard(2), "download it again")
    (folder / INDEX).write_text("{", encoding="utf-8")
    refused(folder, INDEX)
    (folder / "config.json").write_text("{", encoding="utf-8")
    refused(folder, "config.json")
    (folder / "config.json").unlink()
    refused(folder, "has no config.json")


def test_folders_that_are_not_there(tmp_path, monkeypatch):
    for name in (tmp_path / "nowhere", "./nowhere", "nowhere", "a/b/c"):
        with pytest.raises(ValueError, match="does not exist"):
            find_folder(name, "checkpoint")
    monkeypatch.setattr(released_folders, "snapshot_download", _unreachable)
    with pytest.raises(ValueError, match=r"org/name.*nor to be had from the Hub \(no network\)"):
        find_folder("org/name", "checkpoint")


def _unreachable(*_, **__):
    raise OSError("no network")


def test_hub_ids_are_downloaded_without_anything_else(folder, monkeypatch):
    asked = []

    def download(repo, revision, allow_patterns):
        asked.append((repo, revision, allow_patterns))
        return str(folder)

    monkeypatch.setattr(released_folders, "snapshot_download", download)
    assert released_keys("org/name@abc") == {"a", "b", "c"}
    assert asked[0] == ("org/name", "abc", ["config.json", "pytorch_model*"])


def test_keys_of_a_single_file(tmp_path):
    torch.save({"state_dict": {"x": torch.ones(1)}}, tmp_path / "some.ckpt")
    assert released_keys(tmp_path / "some.ckpt") == released_keys(tmp_path) == {"x"}
