"""The command line, in this process (starting Python and torch anew costs seconds)."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image

from commands import json_lines, run
from helpers import picture
from wallaroo_hf import WallarooForConditionalGeneration, WallarooProcessor
from wallaroo_hf.cli import running
from wallaroo_hf.generation import ImageStreamer
from wallaroo_hf.training import stages
from wallaroo_hf.training.datasets import load_rows


@pytest.fixture
def common(compact):
    return ("--model", compact.folder, "--height", 64, "--width", 96, "--device", "cpu")


def test_generate(common, tmp_path):
    out = run("generate", "a red fox", "蓝色的星星", "-n", 2, "--seed", 7, "-o", tmp_path / "new", *common)
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == ["a-red-fox-7.png", "a-red-fox-8.png", "蓝色的星星-10.png", "蓝色的星星-9.png"]
    for name in names:
        assert name in out.replace("\n", "")
    image = Image.open(tmp_path / "new" / "蓝色的星星-9.png")
    assert image.size == (96, 64)
    assert image.text["prompt"] == "蓝色的星星" and image.text["seed"] == "9"
    settings = json.loads(image.text["settings"])
    assert settings["height"] == 64 and settings["model"].endswith("converted") and not settings["published_eval"]


def test_seeds_do_not_depend_on_the_batch(common, tmp_path):
    """Image k gets seed + k, alone or together with others."""
    run("generate", "a cat", "-n", 3, "--seed", 5, "--batch-size", 2, "-o", tmp_path / "together", *common)
    run("generate", "a cat", "--seed", 6, "-o", tmp_path / "alone.png", *common)
    together = Image.open(tmp_path / "together" / "a-cat-6.png")
    assert together.tobytes() == Image.open(tmp_path / "alone.png").tobytes()


@pytest.mark.parametrize("command", ["generate", "edit"])
def test_windows_draw_the_same(common, tmp_path, command):
    picture(1).save(tmp_path / "source.png")
    arguments = ("generate", "a cat") if command == "generate" else ("edit", tmp_path / "source.png", "a cat")
    for window in ("1", "7", "auto"):
        run(*arguments, "--seed", 6, "--window", window, "-o", tmp_path / f"{window}.png", *common)
    pictures = [Image.open(tmp_path / f"{window}.png") for window in ("1", "7", "auto")]
    assert len({image.tobytes() for image in pictures}) == 1
    assert [json.loads(image.text["settings"])["window"] for image in pictures] == ["1", "7", "auto"]
    assert "'auto'" in run(*arguments, "--window", "wide", code=1)


@pytest.mark.parametrize("command", ["generate", "edit"])
def test_temperature_0_takes_the_likeliest(common, tmp_path, command):
    picture(1).save(tmp_path / "source.png")
    arguments = ("generate", "a cat") if command == "generate" else ("edit", tmp_path / "source.png", "a cat")
    for name, seed, more in (
        ("one", 1, ("--temperature", 0)),
        ("two", 2, ("--temperature", 0)),
        ("top", 3, ("--top-k", 1)),
    ):
        run(*arguments, "--seed", seed, *more, "-o", tmp_path / f"{name}.png", *common)
    pictures = [Image.open(tmp_path / f"{name}.png") for name in ("one", "two", "top")]
    assert len({image.tobytes() for image in pictures}) == 1
    assert json.loads(pictures[0].text["settings"])["temperature"] == 0


@pytest.mark.parametrize("command", ["generate", "edit"])
def test_only_plausible_codes(common, tmp_path, command):
    picture(1).save(tmp_path / "source.png")
    arguments = ("generate", "a cat") if command == "generate" else ("edit", tmp_path / "source.png", "a cat")
    for share in (0, 1):
        options = ("--guidance-scale", 5, "--guidance-min-p", share, "-o", tmp_path / f"{share}.png")
        run(*arguments, "--seed", 6, *options, *common)
    pictures = [Image.open(tmp_path / f"{share}.png") for share in (0, 1)]
    assert pictures[0].tobytes() != pictures[1].tobytes()
    assert [json.loads(image.text["settings"])["guidance_min_p"] for image in pictures] == [0, 1]
    assert "`guidance_min_p` is 1.5, but must be" in run(*arguments, "--guidance-min-p", 1.5, code=1)


def test_a_share_that_cannot_be_leaves_a_folder_of_prompts_alone(common, tmp_path):
    """The next command with the right one is no other run."""
    (tmp_path / "prompts.txt").write_text("a cat\n", encoding="utf-8")
    arguments = ("generate", "--prompts", tmp_path / "prompts.txt", "-o", tmp_path / "out", *common)
    assert "must be a number from 0" in run(*arguments, "--guidance-min-p", "nan", code=1)
    assert not (tmp_path / "out").exists()
    run(*arguments, "--guidance-min-p", 0.1)
    assert len(list((tmp_path / "out").glob("*.png"))) == 1


def test_files_are_never_replaced(common, tmp_path):
    for _ in range(2):
        run("generate", "a cat", "--seed", 1, "-o", tmp_path / "cat.png", *common)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cat-2.png", "cat.png"]


def test_edit(common, tmp_path):
    picture(1).save(tmp_path / "source.png")
    out = run("edit", tmp_path / "source.png", "make it blue", "--seed", 1, "-o", tmp_path / "edit.png", *common)
    assert "seed 1" in out
    assert Image.open(tmp_path / "edit.png").size == (96, 64)


def test_an_edit_keeps_its_sources_size(compact, processor, tmp_path, monkeypatch):
    small_processor = processor
    small_processor.buckets = [(48, 64)]
    picture(1, 60, 45).save(tmp_path / "source.png")
    arguments = ("edit", tmp_path / "source.png", "blue", "--seed", 1, "--top-k", 1, "-m", compact.folder)
    small = ("--height", 32, "--width", 48)
    run(*arguments, "-o", tmp_path / "listed.png", *small)
    assert Image.open(tmp_path / "listed.png").size == (48, 32)
    monkeypatch.setattr(WallarooProcessor, "from_pretrained", lambda name: small_processor)
    run(*arguments, "-o", tmp_path / "own.png")
    assert Image.open(tmp_path / "own.png").size == (60, 45)
    assert "crop" in run(*arguments, "--source-fit", "squeeze", code=1)


def test_interrupting_saves_the_rows_that_are_there(compact, common, tmp_path, monkeypatch):
    """Ctrl-C after the second row."""
    whole = ImageStreamer.put

    def interrupt(self, value):
        whole(self, value)
        if self.codes and len(self.codes[0]) == 2 * 6 + 1:
            raise KeyboardInterrupt

    run("generate", "a cat", "--seed", 1, "-o", tmp_path / "whole.png", *common)
    monkeypatch.setattr(ImageStreamer, "put", interrupt)
    out = run("generate", "a cat", "--seed", 1, "-o", tmp_path / "cat.png", *common, code=130)
    assert "Stopped" in out and "cat-partial.png" in out.replace("\n", "")
    partial = Image.open(tmp_path / "cat-partial.png")
    assert partial.size == (96, 32) and not (tmp_path / "cat.png").exists()


def test_published_eval_changes_layout_and_padding(common, tmp_path):
    for name, flags in (("ours", ()), ("published", ("--published-eval",))):
        run("generate", "a small cat", "--seed", 1, "--top-k", 1, "-o", tmp_path / f"{name}.png", *common, *flags)
    ours, published = (Image.open(tmp_path / f"{name}.png") for name in ("ours", "published"))
    assert ours.tobytes() != published.tobytes()
    assert json.loads(published.text["settings"])["published_eval"]


def test_published_edits_crop_their_source(compact, common, tmp_path):
    """As the released scripts do; otherwise the whole source is kept."""
    picture(1, 200, 60).save(tmp_path / "source.png")
    drawn = {}
    for name, flags in (("published", ()), ("same", ("--source-fit", "crop")), ("other", ("--source-fit", "pad"))):
        arguments = ("--seed", 1, "--top-k", 1, "--published-eval", "-o", tmp_path / f"{name}.png", *common, *flags)
        run("edit", tmp_path / "source.png", "make it blue", *arguments)
        drawn[name] = Image.open(tmp_path / f"{name}.png").tobytes()
    assert drawn["published"] == drawn["same"] != drawn["other"]


def test_ask(compact, tmp_path):
    picture(1).save(tmp_path / "source.png")
    arguments = ("ask", tmp_path / "source.png", "What is it?", "-m", compact.folder, "--max-new-tokens", 5)
    assert run(*arguments) == run(*arguments)


def test_sampled_answers(compact, tmp_path):
    """By the command's settings, not by the 1e-6 that Qwen2.5-VL's checkpoints have; a seed repeats an answer."""
    folder = shutil.copytree(compact.folder, tmp_path / "sharp")
    settings = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    settings |= {"temperature": 1e-6, "top_k": 1, "top_p": 0.001}
    (folder / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    picture(1).save(tmp_path / "source.png")
    arguments = ("ask", tmp_path / "source.png", "What is it?", "-m", folder, "--max-new-tokens", 8, "--device", "cpu")
    (greedy,) = json_lines(*arguments)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    (one, again, other) = (json_lines(*arguments, "--sample", "--seed", seed)[0] for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert one == again and one["seed"] == 1 and greedy["seed"] is None
    assert len({answer["answer"] for answer in (greedy, one, other)}) == 3
    for temperature in (0, 1e-6):
        (sharp,) = json_lines(*arguments, "--sample", "--temperature", temperature)
        assert sharp["answer"] == greedy["answer"]
    assert f"seed {sharp['seed']}" not in run(*arguments)
    assert "(seed " in run(*arguments, "--sample")
    for option in ("--temperature", "--seed"):
        assert f"{option} is for --sample" in run(*arguments, option, 1, code=1)


def test_convert(compact, tmp_path):
    arguments = ["convert", "--checkpoint", compact.checkpoint, "--vq", compact.vq, "--base", compact.base]
    out = run(*arguments, "--dtype", "float32", "-o", tmp_path / "whole")
    assert str(tmp_path / "whole") in out.replace("\n", "")
    assert (tmp_path / "whole" / "model.safetensors").read_bytes() == (
        compact.folder / "model.safetensors"
    ).read_bytes()
    run("convert", "--vq", compact.vq, "--vq-only", "-o", tmp_path / "vq")
    assert (tmp_path / "vq" / "config.json").exists()


@pytest.fixture
def captions(tmp_path):
    """Three pictures to draw, one of them not there."""
    for seed in range(2):
        picture(seed, 64, 48).save(tmp_path / f"{seed}.png")
    lines = [{"image": f"{number}.png", "title": f"picture {number}"} for number in range(3)]
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def test_encode(compact, captions, tmp_path):
    arguments = ["encode", captions, "-m", compact.folder, "-o", tmp_path / "out", "--device", "cpu", "--stage", "1"]
    out = run(*arguments, "--column", "image=image", "--column", "caption=title", code=1)
    assert "train.jsonl:3" in out and "--skip-broken" in out and "Traceback" not in out
    done = ["--column", "image=image", "--column", "caption=title", "--skip-broken", "--rows-per-shard", 1]
    out = run(
        *[tmp_path / "other" if item == tmp_path / "out" else item for item in arguments], *done, "--part", "2/2"
    )
    assert "part 2/2" in out and not (tmp_path / "other" / "state.json").exists()
    out = run(
        *[tmp_path / "other" if item == tmp_path / "out" else item for item in arguments], *done, "--part", "1/2"
    )
    assert "1 broken" in out and "missing_image" in out and "Encoded part 1/2" not in out
    rows = load_rows(tmp_path / "other")
    assert [row["image_tokens"][0].shape for row in rows] == [(24, 24)] * 2  # 384 pixels, the size of stage 1
    assert [row["name"] for row in rows] == ["train.jsonl:1", "train.jsonl:2"]


def test_encode_for_a_stage_without_a_layout(compact, captions, tmp_path, monkeypatch):
    """The checkpoint's own, but for the sizes that the stage names."""
    mine = dataclasses.replace(stages.stage_4(), name="5", layout=None, buckets=((64, 96),))
    monkeypatch.setitem(stages.STAGES, "5", lambda: mine)
    arguments = ["encode", captions, "-m", compact.folder, "-o", tmp_path / "out", "--device", "cpu", "--stage", "5"]
    run(*arguments, "--column", "image=image", "--column", "caption=title", "--skip-broken")
    assert [row["image_tokens"][0].shape for row in load_rows(tmp_path / "out")] == [(4, 6)] * 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--part", "3/2"), "k from 1 to n"),
        (("--part", "x"), "'/' between"),
        (("--column", "caption"), "'=' between"),
        (("--format", "llava"), "omnigen2"),
        (("--stage", "5"), "3a"),
    ],
)
def test_encode_refuses(compact, captions, tmp_path, arguments, words):
    out = run("encode", captions, "-m", compact.folder, "-o", tmp_path / "out", *arguments, code=1)
    assert words in out and "Traceback" not in out and not (tmp_path / "out").exists()


def test_encode_needs_a_checkpoint(captions, tmp_path):
    out = run("encode", captions, "-m", tmp_path / "nowhere", "-o", tmp_path / "out", code=1)
    assert "No image tokenizer could be loaded" in out and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("generate", ""), "empty"),
        (("generate", "a cat", "--height", "100", "--width", "64"), "multiple of 16"),
        (("generate", "a cat", "-n", "2", "-o", "one.png"), "folder"),
        (("generate", "a cat", "--device", "nowhere"), "nowhere"),
        (("edit", "nowhere.png", "blue"), "does not exist"),
        (("convert", "--vq", "x.pt", "-o", "out"), "--vq-only"),
        (("convert", "--vq", "x.pt", "--vq-only", "--base", "b", "-o", "out"), "leave out"),
    ],
)
def test_errors_are_one_sentence(compact, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WALLAROO_MODEL", str(compact.folder))
    out = run(*arguments, code=1)
    assert words in out and "Traceback" not in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--dtype", "--stage", "--max-shard-size"])
def test_the_image_tokenizer_alone_has_no_such_option(option):
    out = run("convert", "--vq", "x.pt", "--vq-only", option, "4", "-o", "out", code=1)
    assert f"leave out {option}." in out


def test_a_device_without_room(common, monkeypatch):
    """While drawing, then while loading."""

    def fill(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(running, "draw_images", fill)
    out = run("generate", "a cat", *common, code=1)
    assert "memory is full; use a smaller --batch-size" in out.replace("\n", " ") and "Traceback" not in out
    monkeypatch.setattr(WallarooForConditionalGeneration, "to", fill)
    out = run("generate", "a cat", *common, code=1).replace("\n", " ")
    assert "does not fit into the memory of the device 'cpu'" in out and "cannot be used" not in out


def test_unknown_checkpoint(tmp_path):
    assert "wallaroo convert" in run("generate", "a cat", "-m", tmp_path / "nowhere", code=1)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_damaged_checkpoint(compact, tmp_path, file):
    folder = shutil.copytree(compact.folder, tmp_path / "damaged")
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(data[: len(data) // 2])
    out = run("generate", "a cat", "-m", folder, code=1)
    assert "No checkpoint could be loaded" in out.replace("\n", " ") and "Traceback" not in out


def test_help_does_not_import_torch():
    script = (
        "import sys\n"
        "sys.argv = ['wallaroo', 'generate', '--help']\n"
        "import wallaroo_hf_launcher\n"
        "try:\n"
        "    wallaroo_hf_launcher.main()\n"
        "except SystemExit:\n"
        "    assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "PROMPT" in done.stdout and "--guidance-scale" in done.stdout
