"""What drawings can be at best, told before training."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from commands import run
from helpers import picture
from small_showo2 import save_showo2
from wallaroo_hf import default_checkpoint
from wallaroo_hf.scenes import SceneDataset
from wallaroo_hf.training.best_pictures import best_pictures, psnr, write_sheet
from wallaroo_hf.training.run import RunOptions, fine_tuning, load_training_data


def test_psnr():
    grey = Image.new("RGB", (8, 8), (100, 100, 100))
    assert psnr(grey, grey) == math.inf
    other = Image.fromarray(np.asarray(grey) + np.uint8(10))
    assert psnr(grey, other) == pytest.approx(20 * math.log10(255 / 10))


def _folder(folder, pictures):
    folder.mkdir()
    for index, one in enumerate(pictures):
        one.save(folder / f"{index:02}.png")
        (folder / f"{index:02}.txt").write_text(f"picture {index}")
    return folder


def _best(model, folder, output, **more):
    options = RunOptions(str(model), output, **more)
    sources, _ = load_training_data(str(folder))
    return best_pictures(options, sources, fine_tuning(options.model, {"generation": 1}, False))


def test_up_to_eight_different_ones_from_everywhere(compact, tmp_path):
    same = picture(1, 32, 32)
    folder = _folder(tmp_path / "own", [same, *(picture(index, 32, 32) for index in range(2, 22))])
    (folder / "08.png").write_bytes(b"no picture")
    found = _best(compact.folder, folder, tmp_path)
    assert len(found) == 8 and len({one.name for one in found}) == 8
    assert max(one.name for one in found) > "12.png"  # not the first ones alone
    for one in found:
        assert one.picture.size == one.best.size and one.psnr == pytest.approx(psnr(one.picture, one.best))
    sheet = Image.open(write_sheet(found, tmp_path / "sheet.png"))
    assert sheet.width > 4 * 32 and sheet.height > 4 * 32


def test_pictures_that_the_codec_knows_and_others(tmp_path):
    """The dry run of the built-in checkpoint says which are which."""
    scenes = SceneDataset("test", 3, tasks=["generation"])
    known = _folder(tmp_path / "known", [scenes[index]["images"][-1] for index in range(3)])
    strange = _folder(tmp_path / "strange", [picture(index, 96, 96) for index in range(3)])
    assert min(one.psnr for one in _best(default_checkpoint(), known, tmp_path)) > 25
    for folder, warned in ((known, False), (strange, True)):
        out = " ".join(run("train", "--data", folder, "--dry-run", "-o", tmp_path / folder.name / "run").split())
        assert "dB PSNR" in out and ("drawings can be no better" in out) == warned
        assert Image.open(tmp_path / folder.name / "run" / "at-best.png").width > 96


def test_the_sheet_is_there_beside_broken_rows(tmp_path, monkeypatch):
    folder = _folder(tmp_path / "own", [picture(1, 96, 96), picture(2, 96, 96)])
    (folder / "01.png").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    assert "1 of 2 rows cannot be trained on" in " ".join(run("train", "--data", folder, "--dry-run", code=1).split())
    assert (tmp_path / "at-best.png").is_file()


def test_rows_that_draw_nothing_have_no_sheet(compact, tmp_path):
    (tmp_path / "rows.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}\n'
    )
    run("train", "-m", compact.folder, "--data", tmp_path / "rows.jsonl", "--dry-run", "-o", tmp_path / "run")
    assert not (tmp_path / "run" / "at-best.png").exists()


def test_the_other_family(tmp_path):
    model = save_showo2(tmp_path / "show-o2")
    folder = _folder(tmp_path / "own", [picture(1, 48, 32), picture(2, 32, 32)])
    found = _best(model, folder, tmp_path)
    assert len(found) == 2 and all(math.isfinite(one.psnr) for one in found)
