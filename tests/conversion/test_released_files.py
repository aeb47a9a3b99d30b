"""Finding the authors' files, and opening them without running what is inside."""

import argparse
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from safetensors.torch import load_file, save_file

from wallaroo_hf import WallarooForConditionalGeneration
from wallaroo_hf.conversion import released_files
from wallaroo_hf.conversion.released_files import find_file, load_tensors
from wallaroo_hf.families.loading import load_model

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(1000)}


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def refusal(path, wrapper_keys=("state_dict",), what="checkpoint"):
    with pytest.raises(ValueError) as caught:
        load_tensors(path, wrapper_keys, what)
    message = str(caught.value)
    assert "\n" not in message and f"The {what} '{path}'" in message and message.endswith((".", "?"))
    return message


# ------------------------------------------------------------------------------------------------------- opening


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "module"])
def test_wrapped_and_bare_dictionaries_are_read(tmp_path, wrapper):
    content = TENSORS if wrapper is None else {wrapper: TENSORS, "epoch": 3, "note": "text"}
    torch.save(content, tmp_path / "file.ckpt")
    loaded = load_tensors(tmp_path / "file.ckpt", ("state_dict", "model", "module"), "checkpoint")
    assert list(loaded) == list(TENSORS)
    assert all(torch.equal(loaded[key], value) for key, value in TENSORS.items())


def test_the_first_wrapper_counts(tmp_path):
    torch.save({"model": {"x": torch.ones(1)}, "state_dict": TENSORS}, tmp_path / "file.ckpt")
    assert set(load_tensors(tmp_path / "file.ckpt", ("state_dict", "model"), "checkpoint")) == set(TENSORS)


def test_files_are_mapped_and_nothing_but_weights_is_read(tmp_path, monkeypatch):
    torch.save(TENSORS, tmp_path / "file.ckpt")
    calls = []
    real = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: calls.append(kwargs) or real(*args, **kwargs))
    load_tensors(tmp_path / "file.ckpt", (), "checkpoint")
    assert [(call["weights_only"], call["mmap"]) for call in calls] == [(True, True)]


@pytest.mark.parametrize(
    "content",
    [
        {},
        torch.ones(2),
        [torch.ones(2)],
        {"state_dict": {}},
        {"state_dict": {"a": 1}},
        {"a": torch.ones(2), "b": 1.0},
        {"state_dict": {0: torch.ones(2)}},
        "text",
    ],
    ids=["empty", "tensor", "list", "empty inside", "numbers", "mixed", "numbered", "text"],
)
def test_other_structures_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "file.ckpt")
    message = refusal(tmp_path / "file.ckpt", ("state_dict", "model"))
    assert "not a dictionary of tensors" in message and "state_dict or model" in message and "right file" in message


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("place", ["beside", "inside", "instead"])
def test_malicious_pickles_do_not_run(tmp_path, legacy, place):
    marker = tmp_path / "marker"
    trap = Trap(marker)
    content = {
        "beside": {"state_dict": TENSORS, "trap": trap},
        "inside": {"state_dict": TENSORS | {"trap": trap}},
        "instead": trap,
    }[place]
    path = tmp_path / "file.ckpt"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    message = refusal(path)
    assert not marker.exists()
    if not legacy:
        assert "more than tensors (" in message and ".mkdir)" in message and "not opened" in message
    # the trap is live: whoever unpickles it runs it
    torch.load(path, weights_only=False)
    assert marker.is_dir()


def test_plain_pickles_do_not_run(tmp_path):
    marker = tmp_path / "marker"
    (tmp_path / "file.ckpt").write_bytes(pickle.dumps(Trap(marker)))
    assert "torch.save" in refusal(tmp_path / "file.ckpt")
    assert not marker.exists()


def test_harmless_objects_are_refused_and_named(tmp_path):
    """Training leaves its arguments beside the weights; they are no tensors either."""
    torch.save({"model": TENSORS, "args": argparse.Namespace(lr=1)}, tmp_path / "file.pt")
    message = refusal(tmp_path / "file.pt", ("model",), "image tokenizer")
    assert "argparse.Namespace" in message and "holds tensors only" in message


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_truncation_anywhere_is_noticed(tmp_path, legacy):
    """No cut, at whatever byte, opens or raises anything but our sentence."""
    path = tmp_path / "file.ckpt"
    torch.save({"state_dict": TENSORS}, path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    cuts = {0, 1, 2, 4, len(whole) - 1, len(whole) - 22, len(whole) - 23, *range(3, len(whole), 97)}
    for cut in sorted(cuts):
        path.write_bytes(whole[:cut])
        message = refusal(path)
        assert "incomplete" in message and "download it again" in message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a text file\n",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n",
        b"<!DOCTYPE html><html>Not found</html>",
        b"\x80\x02}q\x00.",
        b"PK\x03\x04" + bytes(100),
        bytes(4096),
    ],
    ids=["empty", "text", "lfs pointer", "html", "pickle", "zip header", "zeros"],
)
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "file.ckpt").write_bytes(content)
    message = refusal(tmp_path / "file.ckpt")
    assert "torch.save" in message and "something else" in message and "download it again" in message


def test_damaged_archives_raise_nothing_else(tmp_path):
    """Random bytes changed anywhere: our sentence, or a file that still opens."""
    path = tmp_path / "file.ckpt"
    torch.save({"state_dict": {"a": torch.ones(3)}}, path)
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for place in torch.randint(len(whole), (20,), generator=generator).tolist():
            damaged[place] = int(torch.randint(256, (1,), generator=generator))
        path.write_bytes(damaged)
        try:
            load_tensors(path, ("state_dict",), "checkpoint")
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error) and "The checkpoint" in str(error)
    assert refused > 100


# ------------------------------------------------------------------------------------------------------- finding


@pytest.fixture
def hub(monkeypatch):
    """A Hub without network: what it holds, and what was asked of it."""

    class Hub:
        files = ("README.md", "config.json", "weights/step.ckpt")
        error = None
        asked = []

        def download(self, repo, filename, revision=None):
            self.asked.append((repo, filename, revision))
            if self.error is not None:
                raise self.error
            return f"/cache/{filename}"

        def list_repo_files(self, repo, revision=None):
            self.asked.append((repo, None, revision))
            if self.error is not None:
                raise self.error
            return list(self.files)

    hub = Hub()
    hub.asked = []
    monkeypatch.setattr(released_files, "hf_hub_download", hub.download)
    monkeypatch.setattr(released_files, "HfApi", lambda: hub)
    return hub


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        ("org/name/file.ckpt", ("org/name", "file.ckpt", None)),
        ("org/name/deep/er/file.pt", ("org/name", "deep/er/file.pt", None)),
        ("org/name/file.ckpt@main", ("org/name", "file.ckpt", "main")),
        ("org/name/file.ckpt@refs/pr/3", ("org/name", "file.ckpt", "refs/pr/3")),
        (Path("org/name/file.ckpt"), ("org/name", "file.ckpt", None)),
    ],
)
def test_hub_files(hub, source, asked):
    assert find_file(source, "checkpoint") == Path("/cache") / asked[1]
    assert hub.asked == [asked]


@pytest.mark.parametrize(("source", "revision"), [("org/name", None), ("org/name@v1", "v1"), ("org/name/", None)])
def test_hub_repositories_with_one_candidate(hub, source, revision):
    assert find_file(source, "checkpoint") == Path("/cache/weights/step.ckpt")
    assert hub.asked == [("org/name", None, revision), ("org/name", "weights/step.ckpt", revision)]


@pytest.mark.parametrize(
    ("files", "words"),
    [(("README.md",), "holds 0 files"), (("a.ckpt", "b.pt"), "holds 2 files")],
)
def test_hub_repositories_without_one_candidate(hub, files, words):
    hub.files = files
    with pytest.raises(ValueError, match=words) as caught:
        find_file("org/name", "image tokenizer")
    assert "'org/name'" in str(caught.value) and "could be the image tokenizer" in str(caught.value)
    assert str(caught.value).endswith("name one.")


@pytest.mark.parametrize("source", ["org/name", "org/name/file.ckpt@main"])
@pytest.mark.parametrize(
    "error",
    [
        OSError(""),
        OfflineModeIsEnabled("Cannot reach it: offline mode is enabled.\n\nTo disable it, unset HF_HUB_OFFLINE."),
        LocalEntryNotFoundError("An error happened. Please check your connection."),
        ValueError("Repo id must use alphanumeric chars: 'x'."),
        HTTPError("[Errno 111] Connection refused"),
        EntryNotFoundError("404 Client Error."),
    ],
)
def test_hub_failures_are_one_sentence(hub, source, error):
    hub.error = error
    with pytest.raises(ValueError) as caught:
        find_file(source, "checkpoint")
    message = str(caught.value)
    assert message.startswith(f"The checkpoint '{source}' is neither a file here nor to be had from the Hub (")
    assert message.endswith("); check the path or the Hub id.") and "()" not in message and "\n" not in message
    assert (str(error).split(".")[0] or "OSError") in message


@pytest.mark.parametrize("source", ["missing.ckpt", "./a/b/c.ckpt", "/no/such/file.pt", "models/file.ckpt", "word"])
def test_missing_files_are_not_looked_for_on_the_hub(hub, source):
    with pytest.raises(ValueError) as caught:
        find_file(source, "checkpoint")
    assert str(caught.value).startswith(f"The checkpoint '{source}' does not exist; give a file, or a Hub id")
    assert hub.asked == []


def test_local_files_come_first(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = Path("org/name/file@1.ckpt")
    file.parent.mkdir(parents=True)
    file.touch()
    assert find_file("org/name/file@1.ckpt", "checkpoint") == file
    assert find_file("org/name", "checkpoint") == file
    assert hub.asked == []


def test_folders_need_one_candidate(tmp_path):
    with pytest.raises(ValueError, match=r"holds 0 files that could be the checkpoint \(none\); name one"):
        find_file(tmp_path, "checkpoint")
    for name in ("a.ckpt", "b.pt", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"holds 2 files that could be the checkpoint \(a.ckpt, b.pt\); name one"):
        find_file(tmp_path, "checkpoint")
    (tmp_path / "b.pt").unlink()
    assert find_file(tmp_path, "checkpoint") == tmp_path / "a.ckpt"


@pytest.mark.parametrize("name", ["a\nb", "\ud800", "x" * 100_000, "\x1b[2J", "\u2028"], ids=ascii)
@pytest.mark.parametrize("value", [torch.ones(3), torch.ones(3).to_sparse()], ids=["unknown", "odd"])
def test_names_in_a_file_are_quoted_on_one_line(workshop, name, value):
    """Whatever a file calls its tensors, what is said of them can be read, printed and sent."""
    workshop.save_checkpoint(workshop.weights() | {name: value})
    message = workshop.refused()
    assert message.isprintable() and ascii(name)[1:30].rstrip("'") in message


def test_names_in_safetensors_are_quoted_on_one_line(compact, tmp_path):
    folder = shutil.copytree(compact.folder, tmp_path / "odd")
    weights = load_file(folder / "model.safetensors") | {"a\nb": torch.ones(3)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"`a\\nb` is unexpected") as caught:
        load_model(WallarooForConditionalGeneration, folder)
    assert str(caught.value).isprintable()
