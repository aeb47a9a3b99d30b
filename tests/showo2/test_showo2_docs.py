"""docs/showo2.md: what it shows runs as written, on a tiny checkpoint."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image

from commands import run
from small_showo2 import picture, save_showo2

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "showo2.md").read_text(encoding="utf-8")
RUN_HERE = (
    "generate",
    "ask",
    "info",
)  # the other commands need released files or ports, or are tested with data of theirs


def _blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a checkpoint and a clip of the names that the page gives them."""
    save_showo2(tmp_path / "show-o2")
    (tmp_path / "clip").mkdir()
    for number in (1, 2, 3):
        picture((40 * number, 90, 200)).save(tmp_path / "clip" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_runs_in_the_order_of_the_page(folder, capsys):
    names: dict = {}
    blocks = [block for block in _blocks("python") if "convert_showo2(" not in block]
    assert len(blocks) >= 4
    torch.manual_seed(0)
    for block in blocks:
        exec(compile(block, "docs/showo2.md", "exec"), names)
    assert Image.open("fox.png").size == (32, 32)
    assert len(names["pictures"]) == len(names["told"].latents[0]) and names["chat"].messages


def test_commands_run(folder):
    commands = [
        shlex.split(line, comments=True)
        for block in _blocks("bash")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    tried = [words[1:] for words in commands if words[:1] == ["wallaroo"] and words[1] in RUN_HERE]
    assert {words[0] for words in tried} >= {"generate", "ask"}
    for words in tried:
        run(*words, "--device", "cpu")
    assert Image.open("fox.png").size == (768, 512) and len(list(Path("drawn").glob("*.png"))) == 4
