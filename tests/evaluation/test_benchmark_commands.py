"""`wallaroo evaluate geneval`, `dpg`, `imgedit`, `verify`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from helpers import picture
from scorers import dpg_reads, geneval_reads, imgedit_reads
from wallaroo_hf.cli import app

LINES = "".join(json.dumps({"tag": "colors", "prompt": prompt}) + "\n" for prompt in ("a red cow", "长凳"))


def run(*arguments, code=0):
    """Runs a command; returns what it wrote to standard output, or if it shall fail to standard error."""
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)], env={"COLUMNS": "120"})
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.stdout if code == 0 else result.stderr


@pytest.fixture
def geneval(compact, tmp_path):
    """The command and its output; the prompts are two."""
    (tmp_path / "g.jsonl").write_text(LINES, encoding="utf-8")
    common = ("--prompts", tmp_path / "g.jsonl", "-m", compact.folder, "--resolution", 32, "--device", "cpu")
    return ("geneval", *common, "-o", tmp_path / "out"), tmp_path / "out"


def test_geneval_end_to_end(geneval):
    command, out = geneval
    assert "geneval, 8 pictures (paper)" in run(*command)
    assert len(geneval_reads(out / "images")) == 8
    assert "geneval, 8 pictures" in run("verify", out)
    assert "seed 0, now 1" in run(*command, "--seed", 1, code=1)


def test_verify_names_what_is_missing(geneval):
    command, out = geneval
    run(*command)
    (out / "images" / "00001" / "samples" / "0002.png").unlink()
    told = run("verify", out, code=1)
    assert told.startswith("images/00001/samples/0002.png is missing\nRemove ") and told.count("\n") == 2
    shutil.rmtree(out / "images")
    run(*command)
    assert "8 pictures" in run("verify", out)
    shutil.rmtree(out / "images")
    for path in (out / "samples").iterdir():
        path.unlink()
    told = run("verify", out, code=1)
    assert told.count("is missing") == 8 and "run the same command again" in told


def test_verify_of_something_else(tmp_path):
    assert "no manifest.json" in run("verify", tmp_path, code=1)


def test_verify_lists_a_few_of_many(compact, geneval, tmp_path):
    command, out = geneval
    run(*command, "-n", 12)
    for path in (out / "images").rglob("*.png"):
        path.unlink()
    told = run("verify", out, code=1)
    assert told.count("is missing") == 20 and "... and 4 more" in told


def test_interrupting_says_how_to_go_on(geneval, monkeypatch):
    from wallaroo_hf.evaluation import drawing_runs

    command, _ = geneval
    draw_anew, asked = drawing_runs._draw_anew, []

    def twice(*arguments):
        asked.append(arguments)
        if len(asked) == 2:
            raise KeyboardInterrupt
        draw_anew(*arguments)

    monkeypatch.setattr(drawing_runs, "_draw_anew", twice)
    assert "run the same command to go on" in run(*command, code=130)
    assert "8 pictures" in run(*command) and len(asked) == 3


@pytest.mark.parametrize(("recipe", "guidance", "top_p"), [("paper", 2.5, None), ("released", 4.0, 0.95)])
def test_dpg_has_two_recipes(compact, tmp_path, recipe, guidance, top_p):
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "whoops1.txt").write_text("a cow")
    out = tmp_path / "out"
    arguments = ("--prompts", tmp_path / "prompts", "-m", compact.folder, "-o", out, "--device", "cpu")
    told = run("dpg", *arguments, "--resolution", 32, "--recipe", recipe, "--published-eval", "--template", "random")
    assert f"dpg, 4 pictures ({recipe}, but template random, published_eval True)" in told
    settings = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["settings"]
    assert (settings["guidance_scale"], settings["top_p"], settings["top_k"]) == (guidance, top_p, 1000)
    assert dpg_reads(out / "images", {"whoops1"}, 32)[1] == []
    assert settings["guidance_min_p"] == 0
    assert "must be one of paper, released" in run("dpg", *arguments, "--recipe", "mine", code=1)
    other = run("dpg", *arguments, "--resolution", 32, "--recipe", recipe, "--guidance-min-p", 0.1, code=1)
    assert "another run" in other and "guidance_min_p 0.0, now 0.1" in other


def test_imgedit_with_the_built_in_checkpoint(tmp_path):
    (tmp_path / "sources").mkdir()
    picture(1, 96, 96).save(tmp_path / "sources" / "1.png")
    table = tmp_path / "edit.json"
    table.write_text(json.dumps({"1": {"id": "1.png", "prompt": "make the star red", "edit_type": "adjust"}}))
    arguments = ("--prompts", table, "-o", tmp_path / "out", "--device", "cpu", "--dtype", "float32")
    assert "imgedit, 1 pictures" in run("imgedit", *arguments, "--sources", tmp_path / "sources")
    source, result = imgedit_reads(tmp_path / "out" / "images", table, tmp_path / "sources")["1"]
    assert result.size == source.size == (96, 96)


def test_errors_are_one_sentence(geneval, monkeypatch):
    command, out = geneval
    told = run(*command, "--template", 77, code=1)
    assert "Picture 00000-0000" in told and told.count("\n") == 1
    monkeypatch.setenv("RANK", "2")
    assert "start with torchrun" in run(*command, code=1)
    assert not out.exists()


def test_two_processes_at_once_draw_the_same_bytes(compact, geneval, tmp_path):
    """As torchrun starts them; the later one makes the scorer's folder."""
    command, out = geneval
    run(*command)
    together = [*map(str, command[:-1]), str(tmp_path / "together")]
    script = "from wallaroo_hf.cli import main; main()"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, "evaluate", *together],
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0] and any("is complete" in text for text in told)

    def content(folder):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    assert content(tmp_path / "together") == content(out)
