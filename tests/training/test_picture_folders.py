"""Folders of pictures as other systems leave them."""

from __future__ import annotations

import io
import tarfile

from helpers import picture
from wallaroo_hf.cli.given import frames_in
from wallaroo_hf.evaluation.dpg import read_dpg
from wallaroo_hf.training.datasets import load_rows
from wallaroo_hf.training.vq.vq_data import image_files


def _png(index=1):
    file = io.BytesIO()
    picture(index, 32, 32).save(file, "PNG")
    return file.getvalue()


def _leave(folder):
    """Two pictures with captions, and what macOS writes beside them."""
    (folder / "__MACOSX").mkdir(parents=True)
    for name, text in (("a.jpg", "a.txt"), ("g.PNG", "g.TXT")):
        (folder / name).write_bytes(_png())
        (folder / text).write_text(f"caption of {name}")
        for junk in (folder / f"._{name}", folder / f"._{text}", folder / "__MACOSX" / f"._{name}"):
            junk.write_bytes(b"\x00\x05\x16\x07Mac OS X")
    return folder


def test_hidden_files_are_no_rows_and_captions_end_in_any_case(tmp_path):
    rows = load_rows(_leave(tmp_path / "own"))
    said = [row["messages"][0]["content"] for row in rows]
    words = [content if isinstance(content, str) else content[-1]["text"] for content in said]
    assert words == ["caption of a.jpg", "caption of g.PNG"] and not any(row.get("error") for row in rows)


def test_hidden_folders_are_passed_over(tmp_path):
    folder = _leave(tmp_path / "own")
    (folder / ".Trash").mkdir()
    (folder / ".Trash" / "old.png").write_bytes(_png(2))
    assert len(load_rows(folder)) == 2
    assert [path.name for path in image_files(folder)] == ["a.jpg", "g.PNG"]


def test_a_hidden_folder_may_be_named(tmp_path):
    assert len(load_rows(_leave(tmp_path / ".own"))) == 2


def test_archives_too(tmp_path):
    with tarfile.open(tmp_path / "rows.tar", "w") as archive:
        for name, data in (("._1.png", b"Mac"), ("1.png", _png()), ("._1.txt", b"Mac"), ("1.txt", b"a boat")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    assert len(load_rows(tmp_path / "rows.tar")) == 1


def test_frames_and_prompts_too(tmp_path):
    folder = _leave(tmp_path / "own")
    assert len(frames_in(str(folder))) == 2
    (folder / "g.TXT").unlink()
    assert [file.path for file in read_dpg(folder).files] == ["a.png"]
