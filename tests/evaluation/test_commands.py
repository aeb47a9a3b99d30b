"""`wallaroo evaluate`, with the tiny model: what continuous integration runs of the benchmark."""

import json

import pytest
from typer.testing import CliRunner

from examinees import blank
from wallaroo_hf.cli import app
from wallaroo_hf.evaluation import TASKS

LINE = '{"task": "generation", "prompt": "a star", "spec": {"objects": [{"shape": "star"}]}}\n'


def run(*arguments, code=0):
    """Runs a command; returns what it wrote to standard output, or if it shall fail to standard error."""
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)], env={"COLUMNS": "120"})
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.stdout if code == 0 else result.stderr


@pytest.fixture
def common(compact, tmp_path):
    return ("-m", compact.folder, "-o", tmp_path / "out", "--device", "cpu")


def test_scenes_end_to_end(common, tmp_path):
    """All tasks with the model itself, whose weights are random; the second time nothing is left to do."""
    arguments = ("scenes", *common, "--items", 2, "--batch-size", 2, "--guidance-scale", 1)
    arguments += ("--guidance-min-p", 0.1)
    out = run(*arguments)
    for words in ("reconstruction", "single_object", "English", "0.0 (0–0)", "96x96", "scores.json", "editing.png"):
        assert words in out
    scores = json.loads(run(*arguments, "--json"))
    assert scores == json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))
    assert list(scores["tasks"]) == list(TASKS) and scores["settings"]["guidance_scale"] == 1.0
    assert scores["settings"]["guidance_min_p"] == 0.1
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"items.jsonl", "scores.json", "pictures", *(f"{task}.png" for task in TASKS)} <= names
    assert "seed 0, now 1" in run(*arguments, "--seed", 1, code=1)


def test_interrupting_says_how_to_go_on(common, examinee, tmp_path):
    def interrupt(item, output):
        if item.name == "understanding-0001":
            raise KeyboardInterrupt
        return output

    examinee.spoil = interrupt
    arguments = ("scenes", *common, "--items", 2, "--tasks", "understanding, generation", "--batch-size", 1)
    assert "same command" in run(*arguments, code=130)
    examinee.spoil = lambda item, output: output
    examinee.asked = []
    assert "100 (100–100)" in run(*arguments) and examinee.asked == [["understanding-0001"]]
    examinee.spoil = lambda item, output: blank(item)
    assert "100 (100–100)" in run(*arguments) and "100 (100–100)" not in run(*arguments, "--no-resume")


def test_prompts_of_ones_own(common, examinee, tmp_path):
    (tmp_path / "own.jsonl").write_text(LINE + "\n" + LINE.replace("a star", "一颗星"), encoding="utf-8")
    examinee.right = blank
    out = run("scenes", *common, "--prompts", tmp_path / "own.jsonl")
    assert "generation" in out and "other" in out and "editing" not in out
    assert "leave them out" in run("scenes", *common, "--prompts", tmp_path / "own.jsonl", "--items", 3, code=1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LINE + LINE.replace('"star"', '"blob"'), "own.jsonl, line 2: unknown shape 'blob'"),
        (LINE + "\n" + "no JSON", "own.jsonl, line 3"),
        ("", "no prompts"),
    ],
)
def test_a_bad_prompts_file_is_refused_in_a_sentence(common, tmp_path, text, words):
    (tmp_path / "own.jsonl").write_text(text, encoding="utf-8")
    out = run("scenes", *common, "--prompts", tmp_path / "own.jsonl", code=1)
    assert words in out and out.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("scenes", "--tasks", "drawing"), "drawing"),
        (("scenes", "--split", "train"), "validation"),
        (("scenes", "--prompts", "nowhere.jsonl"), "nowhere.jsonl"),
        (("sweep", "--guidance-scale", "1,two"), "commas between"),
        (("sweep", "--tasks", "understanding"), "sample codes"),
        (("sweep", "--guidance-min-p", "0,nan"), "must be a number from 0"),
        (("scenes", "--guidance-min-p", -0.1), "must be a number from 0"),
    ],
)
def test_errors_are_one_sentence(common, tmp_path, arguments, words):
    out = run(*arguments, *common, code=1)
    assert words in out and out.count("\n") == 1 and "Traceback" not in out
    assert not (tmp_path / "out").exists()


def test_the_help_has_the_format_of_prompts():
    out = run("scenes", "--help")
    assert '{"kind": "colour", "value": "red"}' in out and '"relations": [[0, "above", 1]]' in out


def test_sweep(common, examinee, tmp_path):
    arguments = ("sweep", *common, "--guidance-scale", "1.5,2", "--temperature", 0.8, "--items", 2)
    out = run(*arguments, "--tasks", "generation")
    assert "1.5" in out and '"image_guidance_scale": 1.5' in out and "sweep.json" in out
    found = json.loads(run(*arguments, "--tasks", "generation", "--json"))
    assert [entry["image_guidance_min_p"] for entry in found["entries"]] == [0.0, 0.2] * 2
    found = json.loads(run(*arguments, "--guidance-min-p", 0, "--tasks", "generation", "--json"))
    assert len(found["entries"]) == 2 and found["choice"]["image_temperature"] == 0.8
