"""What people put in the wrong place: said in one sentence, before anything is loaded or written."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import run, runner
from helpers import picture
from wallaroo_hf.cli import app, running
from wallaroo_hf.cli.given import names_a_picture, require_picture_output, require_prompt
from wallaroo_hf.files.whole import has_file_name, require_folder, require_new


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a picture, a text file and an empty folder, in which no command may load a model."""
    monkeypatch.chdir(tmp_path)
    picture(1).save("drawing.png")
    Path("notes").write_text("a red fox\n", encoding="utf-8")
    Path("prompts.txt").write_text("a red fox\n", encoding="utf-8")
    Path("folder.jpg").mkdir()
    monkeypatch.setattr(running, "load_checkpoint", lambda *arguments: pytest.fail("loaded"))
    return tmp_path


def refused(place, arguments, words):
    before = sorted(place.rglob("*"))
    out = run(*arguments, code=1).replace("\n", " ")
    assert words in out and "Traceback" not in out, out
    assert sorted(place.rglob("*")) == before


PICTURE_OUTPUTS = [
    ("x.jpg", "named like a file, but pictures are saved as .png"),
    ("x.JPEG", "give --output x.png"),
    ("new/x.webp", "give --output new/x.png"),
    ("x.pngg", "named like a file"),
    ("x.xyz", "named like a file"),
    ("x.txt", "named like a file"),
    ("x.safetensors", "named like a file"),
    ("notes", "must be a folder, but"),
    ("notes/x", "is a file"),
    ("notes/x.png", "is a file"),
    ("drawing.png/x.png", "is a file"),
    ("new.jpg/x.png", "named like a file"),
]


@pytest.mark.parametrize(("output", "words"), PICTURE_OUTPUTS)
def test_outputs_of_pictures(place, output, words):
    refused(place, ("generate", "a red fox", "-o", output), words)
    if not output.endswith(".png"):
        refused(place, ("generate", "a red fox", "a cat", "-n", 2, "-o", output), words)
    refused(place, ("edit", "drawing.png", "bluer", "-o", output), words)


def test_several_pictures_need_a_folder(place):
    refused(place, ("generate", "a red fox", "a cat", "-o", "x.png"), "2 images cannot be saved to the one file")
    refused(place, ("edit", "drawing.png", "bluer", "-n", 3, "-o", "x.png"), "3 images cannot be saved")
    refused(place, ("generate", "--prompts", "prompts.txt", "-o", "x.png"), "the one file")


@pytest.mark.parametrize("output", ["new", "run.v2", "x-1.5", "folder.jpg", "a/b/c", "x.final", ".", "x.png", "X.PNG"])
def test_outputs_that_are_fine(place, output):
    require_picture_output(Path(output), 1)


def test_pictures_go_into_a_folder_of_any_name(compact, tmp_path):
    (tmp_path / "mine.png").mkdir()
    common = ("-m", compact.folder, "--height", 32, "--width", 32, "--seed", 1)
    run("generate", "a cat", "a dog", "-o", tmp_path / "mine.png", *common)
    assert sorted(path.name for path in (tmp_path / "mine.png").iterdir()) == ["a-cat-1.png", "a-dog-2.png"]


FOLDERS = [
    ("chat", "-o", "{}"),
    ("app", "--no-open", "-o", "{}"),
    ("generate", "--prompts", "prompts.txt", "-o", "{}"),
    ("encode", "prompts.txt", "-o", "{}"),
    ("train", "-d", "prompts.txt", "-o", "{}"),
    ("train", "vq", "-o", "{}"),
    ("train", "scenes", "-o", "{}"),
    ("merge", "base", "adapter", "-o", "{}"),
    ("export", "--to", "hub", "-o", "{}"),
    ("export", "--to", "qwen2.5-vl", "-o", "{}"),
    ("convert", "--vq", "vq.pt", "--vq-only", "-o", "{}"),
    ("convert", "--vq", "vq.pt", "--checkpoint", "x.ckpt", "--base", "base", "-o", "{}"),
    ("evaluate", "scenes", "-o", "{}"),
    ("evaluate", "sweep", "-o", "{}"),
    ("evaluate", "ablation", "edit_head", "-o", "{}"),
    ("evaluate", "geneval", "--prompts", "prompts.txt", "-o", "{}"),
    ("evaluate", "dpg", "--prompts", "prompts.txt", "-o", "{}"),
    ("evaluate", "imgedit", "--prompts", "prompts.txt", "--sources", ".", "-o", "{}"),
]


@pytest.mark.parametrize("command", FOLDERS, ids=lambda command: "-".join(command[:3]))
@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("x.jpg", "but is named like a file"),
        ("x.safetensors", "but is named like a file"),
        ("notes", "is a file"),
        ("notes/x", "is a file"),
    ],
)
def test_outputs_that_are_folders(place, command, output, words):
    refused(place, [word.format(output) for word in command], words)


WORDS = [
    (("ask", "drawing.png"), "the question is missing"),
    (("ask", "drawing.png", "drawing.png"), "the question is missing"),
    (("ask", "What is it?", "drawing.png"), "the question is missing"),
    (("ask", "nowhere.JPG"), "the question is missing"),
    (("ask", "https://example.org/a.png?size=1"), "the question is missing"),
    (("ask", "drawing.png", "  "), "the question, which is empty"),
    (("edit", "bluer", "drawing.png"), "The picture comes first"),
    (("edit", "drawing.png", "bluer", "drawing.png"), "The picture comes first"),
    (("edit", "drawing.png", "drawing.png"), "what to change is missing"),
    (("edit", "drawing.png", "drawing.png", "drawing.png"), "what to change is missing"),
    (("edit", "drawing.png", ""), "which is empty"),
    (("edit", "drawing.png", "bluer", "--mask", "drawing.png", "--outpaint", "8"), "give one"),
    (("edit", "drawing.png", "bluer", "--outpaint", "8px"), "but must be a number of pixels"),
    (("edit", "drawing.png", "bluer", "--outpaint", "left=8,left=9"), "but must be a number of pixels"),
    (("edit", "drawing.png", "bluer", "--outpaint", "up=8"), "names the side 'up'"),
    (("edit", "drawing.png", "bluer", "--outpaint", "0"), "0 at every side"),
    (("edit", "drawing.png", "bluer", "--mask", "none.png"), "does not exist"),
    (("generate", "drawing.png"), "wallaroo edit 'drawing.png' 'what to change'"),
    (("generate", "a red fox", "drawing.png"), "is a picture"),
    (("generate", "prompts.txt"), "--prompts 'prompts.txt'"),
    (("export", "--to", "hub", "--sample", "drawing.png", "-o", "out"), "is a picture"),
    (("info", "drawing.png"), "is a file; give the folder"),
    (("export", "--to", "hub", "-m", "drawing.png", "-o", "out"), "is a file; give the folder"),
]


@pytest.mark.parametrize(("arguments", "words"), WORDS, ids=[" ".join(arguments) for arguments, _ in WORDS])
def test_what_is_missing_is_said(place, arguments, words):
    refused(place, arguments, words)


def test_a_chat_says_how_pictures_are_shown(tmp_path):
    picture(1).save(tmp_path / "a drawing.png")
    lines = ("drawing.png", str(tmp_path / "a drawing.png"), "/image", "/image  ", "/quit")
    result = runner.invoke(app, ["chat", "-o", str(tmp_path / "out")], input="\n".join(lines) + "\n")
    assert result.exit_code == 0 and not (tmp_path / "out").exists()
    errors = result.stderr.splitlines()
    assert [line.count("show it with: /image") for line in errors] == [1, 1, 0, 0], errors
    assert [line.count("/image PATH") for line in errors] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "text",
    [
        "What is in drawing.png?",
        "a fox, 35mm. No. 5",
        "Nr.5",
        "What.Is",
        "蓝色的星星",
        "x" * 5000,
        "a\0b",
        "v1.0",
        "e.g.",
    ],
)
def test_words_stay_words(place, text):
    assert not names_a_picture(text)
    require_prompt(text)


def test_names_of_files_and_folders(tmp_path):
    assert all(has_file_name(Path(name)) for name in ("a.JPG", "a.tar.gz", "a.json", "b.parquet", "c.pt", "d.mp4"))
    assert not any(has_file_name(Path(name)) for name in ("a", "a.v2", "a-1.5", "run.final", ".hidden", "a."))
    (tmp_path / "a.json").mkdir()
    require_folder(tmp_path / "a.json")
    require_new(tmp_path / "a.json")
