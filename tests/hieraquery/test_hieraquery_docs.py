"""docs/hieraquery.md: what it shows runs as written, on a tiny checkpoint."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from commands import run
from hieraquery_parts import save_qwen, save_sd3
from small_hieraquery import picture, save_hieraquery
from wallaroo_hf.families.registry import find_family

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "hieraquery.md").read_text(encoding="utf-8")
SHORT = ("--device", "cpu", "--steps", "1", "--set", "global_batch_size=1")


def _blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    save_hieraquery(tmp_path / "hieraquery")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_and_commands_run_in_the_order_of_the_page(folder):
    names: dict = {}
    for block in _blocks("python"):
        exec(compile(block, "docs/hieraquery.md", "exec"), names)
    assert Image.open("drawn.png").size == Image.open("edited.png").size == (32, 32)
    assert Image.open("scales.png").size == Image.open("wider.png").size == (64, 32)
    commands = [shlex.split(line, comments=True) for block in _blocks("bash") for line in block.splitlines()]
    tried = [words[1:] for words in commands if words[0] == "wallaroo"]
    first, trained = ["build", "train", "generate", "ask"], ["train", "train", "train", "merge", "encode", "train"]
    assert [words[0] for words in tried] == [*first, "generate", "info", "ask", *trained]
    _write_rows()
    parts = {"Qwen/Qwen2.5-VL-3B-Instruct": save_qwen(folder / "qwen")}
    parts["stabilityai/stable-diffusion-3-medium-diffusers"] = save_sd3(folder / "sd3")
    small = ("--connector", "1x16", "--scales", "1x1:0.5,2x2:1")
    for words in tried:
        more = {"info": (), "merge": (), "train": SHORT, "build": small}.get(words[0], ("--device", "cpu"))
        run(*(parts.get(word, word) for word in words), *(("--device", "cpu") if "scenes" in words else more))
    assert Image.open("first.png").size == (32, 32)
    assert list(Path("drawn").glob("*.png")) and find_family("start").title == "HieraQuery"
    for made in ("run/final", "mine/final", "hieraquery-mine", "scenes/checkpoint"):
        assert find_family(made).title == "HieraQuery"


def _write_rows():
    """A folder of captioned pictures, pairs, and an edit besides."""
    Path("my-pictures").mkdir()
    picture().save("my-pictures/square.png")
    Path("my-pictures/square.txt").write_text("a red square", encoding="utf-8")
    pairs = [{"image": "drawn.png", "text": "a red square"}, {"image": "edited.png", "text": "a blue circle"}]
    asked = [{"type": "image"}, {"type": "text", "text": "make it green"}]
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": [{"type": "image"}]}]
    edit = {"messages": messages, "images": ["drawn.png", "edited.png"]}
    for name, rows in (("pairs", pairs), ("rows", [edit])):
        Path(f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
