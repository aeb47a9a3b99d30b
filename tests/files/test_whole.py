"""Writing: modes as the umask says, and one sentence on a full disk, whichever library noticed it."""

from __future__ import annotations

import errno
import os
import re
import stat

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError
from typer.testing import CliRunner

from helpers import picture
from wallaroo_hf.cli import app, running
from wallaroo_hf.files.saved_pictures import save_png
from wallaroo_hf.files.whole import FullDiskError, full_disk_said, give_usual_modes, new_file, new_folder
from wallaroo_hf.training.vq.vq_checkpoints import write_model

FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
]


@pytest.fixture(params=[0o022, 0o002, 0o077], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder):
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}


def test_files_have_the_mode_of_the_umask(tmp_path, umask):
    with new_file(tmp_path / "files" / "a.txt") as partial:
        partial.write_text("a")
    with new_file(tmp_path / "files" / "a.safetensors") as partial:
        safetensors.torch.save_file({"a": torch.zeros(1)}, partial)  # a file of its own, for its owner only
    save_png(picture(1), tmp_path / "files" / "a.png", "a", 1, {})
    with new_folder(tmp_path / "folder") as partial:
        safetensors.torch.save_file({"a": torch.zeros(1)}, partial / "a.safetensors")
        torch.save(torch.zeros(1), partial / "a.pt")
    assert modes(tmp_path) == {0o666 & ~umask}
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~umask
    assert os.listdir(tmp_path / "folder") != [] and not list(tmp_path.rglob(".*"))


def test_what_was_readable_for_more_stays_so(tmp_path):
    (tmp_path / "a").write_text("a")
    (tmp_path / "a").chmod(0o777)
    before = os.umask(0o077)
    try:
        give_usual_modes(tmp_path)
    finally:
        os.umask(before)
    assert modes(tmp_path) == {0o777}


@pytest.mark.parametrize("error", FULL, ids=repr)
@pytest.mark.parametrize("writer", [new_file, new_folder])
def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path, error, writer):
    output = tmp_path / "output"
    if writer is new_file:
        output.write_text("before")
    with pytest.raises(FullDiskError) as raised, writer(output):
        raise error
    assert str(raised.value).count("\n") == 0 and str(output) in str(raised.value)
    assert str(raised.value).endswith("and run the same command again.")
    assert os.listdir(tmp_path) == (["output"] if writer is new_file else [])
    assert writer is new_folder or output.read_text() == "before"


def test_other_errors_pass():
    for error in (
        OSError(errno.EACCES, "Permission denied"),
        RuntimeError("shape"),
        SafetensorError("header"),
        KeyError("a"),
    ):
        with pytest.raises(type(error)) as raised, full_disk_said():
            raise error
        assert raised.value is error


def test_an_error_behind_the_error_counts():
    with pytest.raises(FullDiskError, match="No space is left for '/data/a'"), full_disk_said():
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "/data/a")
        except OSError as error:
            raise RuntimeError("could not save") from error


@pytest.mark.parametrize("error", FULL, ids=repr)
def test_every_command_says_it_without_a_traceback(monkeypatch, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(running, "load_checkpoint", fail)
    result = CliRunner().invoke(app, ["generate", "a"])
    assert result.exit_code == 1
    assert "Traceback" not in result.output and result.output.startswith("Error: ")
    assert re.search("(No|no) space (is )?left", result.output)


def test_the_image_tokenizer_is_kept_when_a_new_one_cannot_be_written(tmp_path, model, monkeypatch, umask):
    write_model(tmp_path / "final", model.vq_model)
    before = {path.name: path.read_bytes() for path in (tmp_path / "final").iterdir()}
    assert modes(tmp_path / "final") == {0o666 & ~umask}

    def fail(*arguments, **options):
        raise FULL[2]

    monkeypatch.setattr(model.vq_model, "save_pretrained", fail)
    with pytest.raises(FullDiskError):
        write_model(tmp_path / "final", model.vq_model)
    assert {path.name: path.read_bytes() for path in (tmp_path / "final").iterdir()} == before
    assert os.listdir(tmp_path) == ["final"]
