"""Plots and sheets: readable, whole, and nothing left out in silence."""

from __future__ import annotations

import builtins
import math

import numpy as np
import pytest
from PIL import Image, ImageFont

from helpers import picture
from wallaroo_hf.modeling.losses import LOSS_NAMES
from wallaroo_hf.training import reports
from wallaroo_hf.training.reports import contact_sheet, plot_losses

HISTORY = [
    {"step": step, "loss": 20 / step, **{f"loss_{name}": 9 / step + index for index, name in enumerate(LOSS_NAMES)}}
    for step in range(1, 6)
]


def _svg(history, tmp_path, **kwargs):
    return plot_losses(history, tmp_path / "losses.svg", **kwargs).read_text(encoding="utf-8")


def test_every_named_loss_is_plotted(tmp_path):
    """The words of an SVG are comments in it."""
    drawn = _svg([*HISTORY, {"step": 5, "eval_loss_editing_image": 2.0, "eval_loss": 4.0}], tmp_path, title="A run")
    for words in ("A run", "Image codes", "Text", "Sum over tasks", "editing (evaluation)", "sum (evaluation)"):
        assert f"<!-- {words} -->" in drawn
    assert drawn.count("<!-- generation -->") == 2 and drawn.count("<!-- understanding -->") == 1
    assert "guess" not in drawn
    only_images = [{"step": 1, "loss": 9.0, "loss_generation_image": 9.0}]
    drawn = _svg(only_images, tmp_path, codebook_size=16384)
    assert "<!-- a guess among 16,384 -->" in drawn and "<!-- Text -->" not in drawn


def test_steps_without_finite_loss_are_marked(tmp_path):
    marked = _svg([*HISTORY, {"step": 6, "loss": math.nan}], tmp_path)
    assert marked.count("#c0392b") == 3 and "#c0392b" not in _svg(HISTORY, tmp_path)


def test_long_curves_get_a_mean(tmp_path):
    values = [10.0, math.nan, 0.0, 20.0, 30.0]
    assert reports._running_mean(values, 1) == [10.0, 5.0, 10.0, 50 / 3, 25.0]
    long = [{"step": step, "loss": 1.0} for step in range(reports.SMOOTHED_FROM)]
    assert _svg(long, tmp_path).count("opacity: 0.35") == 1


def test_a_plot_needs_losses_and_matplotlib(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no losses"):
        plot_losses([{"step": 1, "loss": math.nan}], tmp_path / "losses.png")
    importing = builtins.__import__

    def without_matplotlib(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return importing(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    with pytest.raises(ImportError, match=r"wallaroo-hf\[train\]"):
        plot_losses(HISTORY, tmp_path / "losses.png")
    assert list(tmp_path.iterdir()) == []


def test_a_sheet_holds_every_picture(tmp_path):
    """Each picture is found in its own row and column, unchanged; large ones are scaled, gaps stay white."""
    images = [picture(1, 96, 96), None, picture(2, 96, 48), picture(3, 960, 480)]
    path = contact_sheet(
        images, ["one", "", "a caption that needs more than one line", "four"], tmp_path / "s.png", 2, 240
    )
    sheet = np.asarray(Image.open(path))
    margin, cell = reports.MARGIN, 240
    left = margin + (cell - 96) // 2
    assert (sheet[margin : margin + 96, left : left + 96] == np.asarray(images[0])).all()
    assert (sheet[: margin + 96, 2 * margin + cell :] == 255).all()
    found = [
        row
        for row in range(len(sheet) - 48)
        if (sheet[row : row + 48, left : left + 96] == np.asarray(images[2])).all()
    ]
    assert len(found) == 1
    assert sheet.shape[1] == 3 * margin + 2 * cell
    assert not path.with_suffix(".txt").exists()


def test_transparent_pictures_stand_on_white(tmp_path):
    sheet = Image.open(contact_sheet([Image.new("RGBA", (96, 96), (255, 0, 0, 0))], [""], tmp_path / "s.png"))
    assert sheet.getcolors() == [(sheet.width * sheet.height, (255, 255, 255))]


def test_captions_without_glyphs_go_to_a_text_file(tmp_path, monkeypatch):
    """No font here: the sheet has numbers, the file has the words."""
    monkeypatch.setattr(reports, "OTHER_FONTS", ())
    images = [picture(1), picture(2)]
    path = contact_sheet(images, ["a cat", "一只猫"], tmp_path / "sheet.png")
    assert path.with_suffix(".txt").read_text(encoding="utf-8") == "(1) a cat\n(2) 一只猫\n"
    numbered = contact_sheet(images, ["a cat", "(2)"], tmp_path / "numbered.png")
    assert Image.open(path).tobytes() == Image.open(numbered).tobytes()


def test_another_font_is_used_where_it_has_the_glyphs(tmp_path, monkeypatch):
    default = reports._default_font()
    larger = ImageFont.load_default(reports.FONT_SIZE + 5)
    monkeypatch.setattr(reports, "_has_glyphs", lambda font, text: font is larger)
    monkeypatch.setattr(reports, "_default_font", lambda: default)
    monkeypatch.setattr(ImageFont, "truetype", lambda name, size: larger)
    path = contact_sheet([picture(1)], ["一只猫"], tmp_path / "sheet.png")
    assert not path.with_suffix(".txt").exists()


def test_captions_are_wrapped_and_cut():
    font = reports._default_font()
    lines = reports._wrapped("two words and " + "x" * 60 + " and many more words that do not fit any more", font, 120)
    assert len(lines) == reports.MAX_LINES and lines[-1].endswith("...")
    assert all(font.getlength(line) <= 120 for line in lines)
    assert reports._wrapped("", font, 120) == []
    assert list(reports._words("a 猫b  猫")) == ["a ", "猫", "b ", "猫", ""]


def test_what_does_not_match_is_refused(tmp_path):
    for images, captions, columns in (([], [], 1), ([picture(1)], [], 1), ([picture(1)], [""], 0)):
        with pytest.raises(ValueError):
            contact_sheet(images, captions, tmp_path / "sheet.png", columns)
    assert list(tmp_path.iterdir()) == []
