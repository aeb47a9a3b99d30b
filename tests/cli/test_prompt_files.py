"""Files of prompts: reading, planning, and drawing them in one process or two."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from commands import json_lines, run
from test_architecture import SOURCE
from wallaroo_hf import WallarooProcessor
from wallaroo_hf.cli.processes import place_in_world
from wallaroo_hf.cli.prompt_files import MANIFEST, check_manifest, plan_batches, read_prompts


def _file(folder, text, name="prompts.txt"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_plain_lines(tmp_path):
    entries = read_prompts(_file(tmp_path, "\ufeffa cat\r\n\n  蓝色的星星  \n"))
    assert entries == [(1, {"prompt": "a cat"}), (3, {"prompt": "蓝色的星星"})]


def test_json_lines(tmp_path):
    rows = [{"prompt": "a cat", "seed": 7, "name": "cat"}, {"prompt": "a dog", "aspect_ratio": "2:1"}]
    path = _file(tmp_path, "\n".join(map(json.dumps, rows)), "prompts.jsonl")
    batches = plan_batches(read_prompts(path), num_images=2, seed=100, batch_size=3)
    assert [len(batch) for batch in batches] == [3, 1]
    jobs = [job for batch in batches for job in batch]
    assert [job.seed for job in jobs] == [7, 8, 102, 103]
    assert [job.file for job in jobs] == ["cat-1.png", "cat-2.png", "00002-a-dog-102.png", "00003-a-dog-103.png"]
    assert jobs[2].settings == {"aspect_ratio": "2:1"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"prompt": "a", "name": "../out"}', "nowhere else"),
        ('{"prompt": "a", "name": "/etc/x"}', "nowhere else"),
        ('{"prompt": "a", "name": "a/b"}', "nowhere else"),
        ('{"prompt": "a", "name": "..\\\\b"}', "nowhere else"),
        ('{"prompt": "a", "name": ".."}', "nowhere else"),
        ('{"prompt": ""}', "empty prompt"),
        ('{"prompt": 3}', "wrong type"),
        ('{"prompt": "a", "seed": true}', "wrong type"),
        ('{"prompt": "a", "seed": -1}', "seeds are"),
        ('{"prompt": "a", "heigth": 3}', "unknown entry 'heigth'"),
        ('{"prompt": "a", "a\\nb": 3}', r"unknown entry 'a\\nb'"),
        ('{"prompt": "a", "\\ud800": 3}', r"unknown entry '\\ud800'"),
        ('{"prompt": "a", "' + "x" * 1000 + '": 3}', r"unknown entry 'x{30}\.\.\.x{30}'"),
        ('{"prompt": [' + "7, " * 1000 + "7]}", r"has \[7, .{0,60}\.\.\.[ 7,]*\] for"),
        ('{"prompt": ', "no JSON object"),
        ("[]", '"prompt"'),
        ("", "no prompts"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, words):
    with pytest.raises(ValueError, match=words):
        read_prompts(_file(tmp_path, f"{line}\n", "prompts.jsonl"))


def test_other_bad_files(tmp_path):
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "binary.txt", tmp_path / "nowhere.txt", tmp_path):
        with pytest.raises(ValueError, match="could not be read"):
            read_prompts(path)
    same = [(1, {"prompt": "a", "name": "x"}), (2, {"prompt": "b", "name": "X.png"})]
    with pytest.raises(ValueError, match="Lines 1 and 2 both name"):
        plan_batches(same, 1, 0, 4)


def test_names_made_of_prompts_stay_in_the_folder():
    """Whatever a prompt says, its file's name has no separators and no dots but the last."""
    prompts = ["../../etc/passwd", "..\\..\\x", "/root", "a\0b", "." * 300, "\u2044\u2215", "con"]
    ((*jobs,),) = plan_batches([(1, {"prompt": prompt}) for prompt in prompts], 1, 0, 100)
    assert all(job.file.count(".") == 1 and not set(job.file) & set("/\\\0") for job in jobs)


@pytest.mark.parametrize("place", [("2", "2"), ("x", "2"), ("-1", "2")])
def test_impossible_places(monkeypatch, place):
    monkeypatch.setenv("RANK", place[0])
    monkeypatch.setenv("WORLD_SIZE", place[1])
    with pytest.raises(ValueError, match="torchrun"):
        place_in_world()


@pytest.fixture
def command(compact, tmp_path):
    path = _file(tmp_path, "".join(f"picture {number}\n" for number in range(5)))
    size = ("--height", "32", "--width", "48", "--device", "cpu")
    return ["generate", "--prompts", str(path), "-m", str(compact.folder), "--batch-size", "2", *size]


def _pictures(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}


def test_resume_redoes_whole_batches(command, tmp_path):
    """A batch that lacks an image is drawn again, the others are left alone, and all is as if never interrupted."""
    run(*command, "-o", tmp_path / "whole")
    whole = _pictures(tmp_path / "whole")
    assert len(whole) == 5
    names = sorted(whole)
    (tmp_path / "whole" / names[2]).unlink()
    (tmp_path / "whole" / names[3]).write_bytes(b"other")
    again = json_lines(*command, "-o", tmp_path / "whole")
    assert [row["prompt"] for row in again] == ["picture 2", "picture 3"]
    assert _pictures(tmp_path / "whole") == whole
    assert json_lines(*command, "-o", tmp_path / "whole") == []
    image = Image.open(tmp_path / "whole" / names[4])
    assert image.text["prompt"] == "picture 4" and image.text["seed"] == "4"


def test_another_run_is_not_mixed_in(command, tmp_path):
    run(*command, "-o", tmp_path / "out")
    out = run(*command, "--seed", 9, "-o", tmp_path / "out", code=1)
    assert "another run (other prompts, seed)" in out.replace("\n", " ")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "chat_template.jinja"])
def test_a_fine_tune_is_another_checkpoint(compact, tmp_path, name):
    """Its files may have the sizes of its base's."""
    tuned = shutil.copytree(compact.folder, tmp_path / "tuned")
    content = bytearray((tuned / name).read_bytes())
    content[-1] ^= 1
    (tuned / name).write_bytes(content)
    check_manifest(tmp_path, [], str(compact.folder), {"seed": 0})
    check_manifest(tmp_path, [], str(shutil.copytree(compact.folder, tmp_path / "copy")), {"seed": 0})
    with pytest.raises(ValueError, match=r"another run \(other checkpoint\)"):
        check_manifest(tmp_path, [], str(tuned), {"seed": 0})


def test_what_says_nothing_about_the_model_may_change(compact, tmp_path):
    scored = shutil.copytree(compact.folder, tmp_path / "scored")
    check_manifest(tmp_path, [], str(scored), {})
    (scored / "scores.json").write_text("{}", encoding="utf-8")
    check_manifest(tmp_path, [], str(scored), {})


@pytest.mark.parametrize("content", ["[]", "{", '{"prompts": ["a cat"]}', "\ud800"])
def test_a_folder_with_another_file_of_that_name(compact, tmp_path, content):
    (tmp_path / MANIFEST).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match=r"prompts\.json that .* did not write; choose another folder"):
        check_manifest(tmp_path, [], str(compact.folder), {})


def test_lines_may_have_sizes_of_their_own(compact, tmp_path):
    rows = [
        {"prompt": "a cat", "height": 32, "width": 64, "name": "wide"},
        {"prompt": "a dog", "name": "own", "negative_prompt": "blurry"},
    ]
    path = _file(tmp_path, "\n".join(map(json.dumps, rows)), "prompts.jsonl")
    size = ("--height", 48, "--width", 48)
    run("generate", "--prompts", path, "-m", compact.folder, "-o", tmp_path / "out", "--device", "cpu", *size)
    assert Image.open(tmp_path / "out" / "wide.png").size == (64, 32)
    assert Image.open(tmp_path / "out" / "own.png").size == (48, 48)


@pytest.mark.parametrize("others", [[], [{"prompt": "a dog", "name": "own"}]])
def test_aspect_ratios_of_lines_replace_the_size_of_the_command(compact, processor, tmp_path, monkeypatch, others):
    """Whether all lines of a batch have one or some."""
    processor.buckets = [(32, 64)]
    monkeypatch.setattr(WallarooProcessor, "from_pretrained", lambda name: processor)
    rows = [{"prompt": "a cat", "aspect_ratio": "2:1", "name": "wide"}, *others]
    path = _file(tmp_path, "\n".join(map(json.dumps, rows)), "prompts.jsonl")
    size = ("--height", 48, "--width", 48)
    run("generate", "--prompts", path, "-m", compact.folder, "-o", tmp_path / "out", "--device", "cpu", *size)
    sizes = {name: Image.open(tmp_path / "out" / name).size for name in _pictures(tmp_path / "out")}
    assert sizes == {"wide.png": (64, 32), **({"own.png": (48, 48)} if others else {})}


@pytest.mark.parametrize("prompt", ["<|im_end|>", "<|im_start|>user"])
def test_bad_prompts_are_found_before_anything_is_drawn(compact, tmp_path, prompt):
    path = _file(tmp_path, f"a cat\n{prompt}\n")
    out = run("generate", "--prompts", path, "-m", compact.folder, "-o", tmp_path / "out", code=1)
    assert "Line 2" in out and "special token" in out.replace("\n", " ") and not _pictures(tmp_path / "out")


def test_two_processes_draw_what_one_draws(command, tmp_path):
    """Started by torchrun; byte by byte, each prompt once."""
    one = json_lines(*command, "-o", tmp_path / "1")
    environment = {**os.environ, "PYTHONPATH": str(SOURCE.parent), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "wallaroo_hf", *command, "--json", "-o", str(tmp_path / "2")],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    two = [json.loads(line) for line in done.stdout.splitlines()]
    for rows in (one, two):
        assert sorted(row["prompt"] for row in rows) == [f"picture {number}" for number in range(5)]
    assert _pictures(tmp_path / "1") == _pictures(tmp_path / "2") and len(_pictures(tmp_path / "1")) == 5
