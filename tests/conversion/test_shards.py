"""Folders that appear whole or not at all, and shards."""

import json
import os
import stat

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from typer.testing import CliRunner

from wallaroo_hf.cli import app
from wallaroo_hf.conversion.shards import write_shards
from wallaroo_hf.files.whole import new_folder

TENSORS = {
    "one": torch.randn(100, 10),
    "two": torch.randn(50, 10).T,  # not contiguous
    "three": torch.randn(30, 10).to(torch.float16),
    "four": torch.randn(1).expand(20, 10),  # one number behind all
    "big": torch.randn(500, 10),
    "scalar": torch.tensor(3.0),
}
DTYPES = {name: torch.float32 if name in ("one", "three") else torch.bfloat16 for name in TENSORS}


def write(folder, max_shard_size, tensors=TENSORS, dtypes=DTYPES):
    counts = []
    write_shards(folder, tensors, dtypes, max_shard_size, counts.append)
    return counts


def check(loaded, tensors=TENSORS, dtypes=DTYPES):
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert loaded[name].dtype == dtypes[name]
        assert torch.equal(loaded[name], tensor.to(dtypes[name]))


def test_one_file_needs_no_index(tmp_path):
    assert write(tmp_path, "5GB") == [len(TENSORS)]
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    check(load_file(tmp_path / "model.safetensors"))
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}  # transformers asks for it


@pytest.mark.parametrize("size", [4000, 5000, "6KB"])
def test_shards_and_their_index(tmp_path, size):
    counts = write(tmp_path, size)
    limit = 6000 if size == "6KB" else size
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text(encoding="utf-8"))
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(files) == len(counts) > 1 and sum(counts) == len(TENSORS)
    assert files == [f"model-{i:05d}-of-{len(files):05d}.safetensors" for i in range(1, len(files) + 1)]
    assert sorted(set(index["weight_map"].values())) == files
    loaded = {}
    for name in files:
        shard = load_file(tmp_path / name)
        assert {index["weight_map"][key] for key in shard} == {name}
        # a tensor larger than the limit has a file of its own
        assert sum(value.nbytes for value in shard.values()) <= limit or len(shard) == 1
        loaded |= shard
    check(loaded)
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in loaded.values())


def test_tensors_that_share_memory_are_written_both(tmp_path):
    """Tied weights and views of one storage are separate tensors in the output."""
    whole = torch.randn(10, 10)
    tensors = {"whole": whole, "same": whole, "row": whole[3]}
    dtypes = dict.fromkeys(tensors, torch.float32)
    write(tmp_path, "5GB", tensors, dtypes)
    check(load_file(tmp_path / "model.safetensors"), tensors, dtypes)


def test_weights_are_readable_like_other_files(tmp_path):
    write(tmp_path, "5GB")
    assert stat.S_IMODE((tmp_path / "model.safetensors").stat().st_mode) == 0o644


def test_folder_appears_when_it_is_whole(tmp_path):
    output = tmp_path / "deep" / "output"
    with new_folder(output) as folder:
        (folder / "file").write_text("x")
        assert folder.parent == output.parent and not output.exists()
    assert os.listdir(output.parent) == ["output"] and os.listdir(output) == ["file"]
    assert stat.S_IMODE(output.stat().st_mode) == 0o755


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()], ids=["disk", "interrupt"])
@pytest.mark.parametrize("existed", [False, True])
def test_failure_leaves_nothing(tmp_path, error, existed):
    output = tmp_path / "output"
    if existed:
        output.mkdir()
    with pytest.raises(type(error)), new_folder(output) as folder:
        (folder / "file").write_text("x")
        raise error
    assert os.listdir(tmp_path) == (["output"] if existed else [])
    assert not existed or os.listdir(output) == []


def test_empty_folder_is_taken(tmp_path):
    output = tmp_path / "output"
    output.mkdir()
    with new_folder(output) as folder:
        (folder / "file").write_text("x")
    assert os.listdir(output) == ["file"]


def test_linked_and_current_folders_are_taken(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with new_folder(tmp_path / "link") as folder:
        (folder / "file").write_text("x")
    assert os.listdir(tmp_path / "real") == ["file"] and (tmp_path / "link").is_symlink()
    (tmp_path / "current").mkdir()
    monkeypatch.chdir(tmp_path / "current")
    with new_folder(type(tmp_path)(".")) as folder:
        (folder / "file").write_text("x")
    assert sorted(os.listdir(tmp_path)) == ["current", "link", "real"]
    assert os.listdir(tmp_path / "current") == ["file"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_there_is_not_overwritten(tmp_path, kind):
    output = tmp_path / "output"
    if kind == "folder":
        output.mkdir()
    kept = output if kind == "file" else output / "file"
    kept.write_text("precious")
    with (
        pytest.raises(
            ValueError, match=r"is a file; give another" if kind == "file" else r"not empty; choose another folder"
        ),
        new_folder(output),
    ):
        raise AssertionError("must not begin")
    assert kept.read_text() == "precious" and os.listdir(tmp_path) == ["output"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(compact, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("wallaroo_hf.conversion.shards.save_file", fail)
    arguments = ["convert", "--vq", str(compact.vq), "--output", str(tmp_path / "out")]
    for more in (["--vq-only"], ["--checkpoint", str(compact.checkpoint), "--base", str(compact.base)]):
        result = CliRunner().invoke(app, [*arguments, *more])
        assert result.exit_code == 1 and "Traceback" not in result.output
        assert f"No space is left for '{tmp_path / 'out'}'; make room there" in " ".join(result.output.split())
        assert os.listdir(tmp_path) == []
