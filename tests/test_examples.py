"""Every example runs on the tiny checkpoint."""

import importlib
import os
import runpy
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LogitsProcessorList

from films import film_frames, write_film
from helpers import picture
from small_showo2 import save_showo2
from test_architecture import SOURCE
from wallaroo_hf.showo2 import ShowO2Processor

EXAMPLES = SOURCE.parents[1] / "examples"


@pytest.fixture
def run(monkeypatch, compact, capsys):
    """Runs an example as a script and returns what it printed."""

    def run_example(name, *arguments):
        command = [str(EXAMPLES / f"{name}.py"), *map(str, arguments), "--model", str(compact.folder)]
        monkeypatch.setattr(sys, "argv", command)
        runpy.run_path(command[0], run_name="__main__")
        return capsys.readouterr().out

    return run_example


def test_draw(run, tmp_path):
    out = run("draw", "a cat", "--height", 160, "--width", 64, "--output", tmp_path / "cat.png")
    assert "cat.png" in out and Image.open(tmp_path / "cat.png").size == (64, 160)


def test_showo2(monkeypatch, capsys, tmp_path):
    """On a tiny Show-o2."""
    command = ["showo2.py", "a red square", "what colour is it?", "--model", str(save_showo2(tmp_path / "show-o2"))]
    command += ["--height", "32", "--width", "64", "--steps", "10", "--max-new-tokens", "5"]
    monkeypatch.setattr(sys, "argv", [*command, "--output", str(tmp_path / "square.png")])
    made = []
    pictures = ShowO2Processor.pictures
    monkeypatch.setattr(ShowO2Processor, "pictures", lambda self, pixels: made.append(1) or pictures(self, pixels))
    runpy.run_path(str(EXAMPLES / "showo2.py"), run_name="__main__")
    assert Image.open(tmp_path / "square.png").size == (64, 32) and len(made) == 2  # a preview, and the end
    assert "Drawn: " in capsys.readouterr().out


def test_windows(run, tmp_path):
    out = run("windows", "a cat", "--size", 64, "--window", 8, "--output", tmp_path / "windows.png")
    assert "The same 16 codes" in out and Image.open(tmp_path / "windows.png").width == 3 * (4 * 48 + 16) + 16


def test_edit(run, tmp_path, monkeypatch):
    picture(1, 60, 45).save(tmp_path / "source.png")
    run("edit", tmp_path / "source.png", "make it blue", "--output", tmp_path / "blue.png")
    assert Image.open(tmp_path / "blue.png").size == (60, 45)


def test_inpaint(run, tmp_path):
    source, output = picture(1, 60, 45), tmp_path / "painted.png"
    source.save(tmp_path / "source.png")
    command = ("inpaint", tmp_path / "source.png", "make it blue", "--output", output)
    assert "60x45" in run(*command)
    painted = Image.open(output)
    assert painted.crop((0, 0, 30, 45)) == source.crop((0, 0, 30, 45)) and painted != source
    Image.new("L", (60, 45), 255).save(tmp_path / "mask.png")
    assert "60x45" in run(*command, "--mask", tmp_path / "mask.png") and Image.open(output) != painted
    assert "70x45" in run(*command, "--grow", "right=10")
    assert Image.open(output).crop((0, 0, 60, 45)) == source


def test_ask(run, tmp_path):
    picture(1).save(tmp_path / "source.png")
    assert run("ask", tmp_path / "source.png", "What is it?", "--max-new-tokens", 5).strip()


def test_story(run, tmp_path, monkeypatch, compact):
    """The tiny model would never draw by itself, so its text head is made to want to."""
    from wallaroo_hf import WallarooForConditionalGeneration

    start = compact.model.config.generate_start_token_id
    generate = WallarooForConditionalGeneration._get_logits_processor

    def draws_soon(self, generation_config, *args, **kwargs):
        processors = generate(self, generation_config, *args, **kwargs)
        if generation_config.eos_token_id is None:
            return processors  # a drawing segment

        def want(input_ids, scores):
            return scores.index_fill(1, torch.tensor([start]), 1e4 if int(input_ids[0, -1]) != start else -1e4)

        return LogitsProcessorList([*processors, want])

    monkeypatch.setattr(WallarooForConditionalGeneration, "_get_logits_processor", draws_soon)
    size = ("--height", 32, "--width", 48, "--max-new-tokens", 2)
    out = run("story", "Draw twice.", "--output", tmp_path / "story", *size)
    assert out.count(".png") == 2
    assert Image.open(tmp_path / "story" / "2.png").size == (48, 32)


def test_demo(run, tmp_path):
    out = run("demo", "--output", tmp_path)
    assert "demo.png" in out and "How many circles" in out
    assert Image.open(tmp_path / "demo.png").width > 300


def test_pipeline(monkeypatch, capsys, tmp_path):
    """With the built-in checkpoint: the tiny one would draw its first size, which takes long."""
    monkeypatch.setattr(sys, "argv", ["pipeline.py", "--output", str(tmp_path)])
    runpy.run_path(str(EXAMPLES / "pipeline.py"), run_name="__main__")
    assert Image.open(tmp_path / "heart.png").size == Image.open(tmp_path / "blue.png").size == (96, 96)


def test_any_to_any(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["any_to_any.py", "--output", str(tmp_path / "drawing.png")])
    runpy.run_path(str(EXAMPLES / "any_to_any.py"), run_name="__main__")
    assert Image.open(tmp_path / "drawing.png").size == (96, 96) and capsys.readouterr().out.strip()


def test_export(run, tmp_path):
    out = run("export", "--output", tmp_path)
    assert out.split() == [str(tmp_path / "hub"), str(tmp_path / "qwen2.5-vl")]
    assert (tmp_path / "hub" / "wallaroo_remote.py").exists()
    assert (tmp_path / "qwen2.5-vl" / "preprocessor_config.json").exists()


def test_chat(tmp_path):
    """The shell script, with a `wallaroo` of this environment on its path."""
    command = tmp_path / "bin" / "wallaroo"
    command.parent.mkdir()
    starts = "import wallaroo_hf_launcher; wallaroo_hf_launcher.main()"
    command.write_text(f"#!{sys.executable}\n{starts}\n", encoding="utf-8")
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": str(SOURCE.parent)}
    (tmp_path / "chat").mkdir()
    done = subprocess.run(
        ["bash", str(EXAMPLES / "chat.sh"), str(tmp_path / "chat")],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert "draw-a-red-circle-1.png" in done.stdout and len(list((tmp_path / "chat" / "drawn").glob("*.png"))) == 2


def test_app(run, monkeypatch):
    gradio = pytest.importorskip("gradio", reason="the web page needs gradio: pip install 'wallaroo-hf[app]'")
    reached = []

    def visit(page):
        with urllib.request.urlopen(page.local_url) as answer:
            reached.append(answer.status)
        page.close()

    monkeypatch.setattr(gradio.Blocks, "block_thread", visit)
    assert "Serving at http://127.0.0.1:" in run("app") and reached == [200]


@pytest.mark.parametrize("name", ["pipeline.py", "any_to_any.py", "chat.sh", "app.py", "export.py"])
def test_a_door_takes_less_than_twenty_lines(name):
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) < 20


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("draw", "drawing.png"),
        ("edit", "edit.png"),
        ("ask", None),
        ("story", "story"),
        ("windows", "windows.png"),
        ("pipeline", "blue.png"),
        ("any_to_any", "drawing.png"),
        ("export", "exported"),
    ],
)
def test_without_arguments(name, made, tmp_path, monkeypatch, capsys):
    """On the built-in checkpoint; `demo`, `finetune` and `app` have no required ones either, and tests above and below."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert capsys.readouterr().out.strip() and (made is None or (tmp_path / made).exists())


def test_only_what_the_built_in_checkpoint_cannot_do_needs_arguments():
    needing = {path.name for path in EXAMPLES.glob("*.py") if "required=True" in path.read_text(encoding="utf-8")}
    assert needing == {"showo2.py", "video.py"}  # the built-in checkpoint was not trained on videos


@pytest.mark.parametrize("method", ["full", "lora"])
def test_finetune(run, compact, tmp_path, method):
    """A few steps on all tasks; the result loads."""
    from wallaroo_hf import WallarooForConditionalGeneration

    few = ("--steps", 10, "--batch-size", 4, "--size", 32, "--shown", 1, "--device", "cpu")
    out = run("finetune", *few, *(["--lora"] if method == "lora" else []), "--output", tmp_path / "run")
    assert "A traffic light." in out and "generation.png" in out and ("wallaroo merge" in out) == (method == "lora")
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"losses.png", "generation.png", "editing.png", "answers.txt", "final"} <= written
    model = WallarooForConditionalGeneration.from_pretrained(tmp_path / "run" / "final")
    before = compact.model.generation_head[0].weight
    head = model.generation_head
    assert not torch.equal((head.modules_to_save.default if method == "lora" else head)[0].weight, before)
    with pytest.raises(SystemExit, match="finished run"):
        run("finetune", *few, "--output", tmp_path / "run")


@pytest.mark.parametrize(("name", "edits"), [("posters", 8), ("signs", 6)])
def test_the_data_of_finetuning_is_what_its_script_draws(processor, tmp_path, monkeypatch, name, edits):
    """Every row can be trained on, and the files are those that the script writes."""
    from wallaroo_hf.training.collator import WallarooDataCollator
    from wallaroo_hf.training.run import count_rows, load_training_data
    from wallaroo_hf.training.sources import named_rows
    from wallaroo_hf.training.validation import validate_rows

    folder = EXAMPLES / "finetune" / name
    sources, _ = load_training_data(str(folder / "all.yaml"))
    assert count_rows(sources) == {"generation": 24, "editing": edits, "understanding": 12}
    assert validate_rows(named_rows(sources), WallarooDataCollator(processor).measure).num_broken == 0
    monkeypatch.syspath_prepend(str(EXAMPLES / "finetune"))
    importlib.import_module(f"draw_{name}").main(tmp_path)
    drawn = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.*")}
    assert drawn == {path.relative_to(folder) for path in folder.rglob("*.*")}
    for path in drawn:
        if path.suffix == ".png":
            difference = _pixels(folder / path) - _pixels(tmp_path / path)
            assert abs(difference).mean() < 1, path  # another Pillow may smooth edges otherwise
        else:
            assert (folder / path).read_text(encoding="utf-8") == (tmp_path / path).read_text(encoding="utf-8")


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), dtype=int)


def test_the_data_of_finetuning_is_small():
    assert sum(path.stat().st_size for path in (EXAMPLES / "finetune").rglob("*.*") if path.suffix != ".pyc") < 300_000


def test_vlmevalkit(compact, tmp_path, monkeypatch, capsys):
    """The launcher puts the model where VLMEvalKit's run.py finds it, and answers its messages (a stand-in's here)."""
    (tmp_path / "vlmeval" / "vlm").mkdir(parents=True)
    (tmp_path / "vlmeval" / "__init__.py").touch()
    (tmp_path / "vlmeval" / "config.py").write_text("supported_VLM = {}\n")
    (tmp_path / "vlmeval" / "vlm" / "__init__.py").touch()
    (tmp_path / "vlmeval" / "vlm" / "base.py").write_text("class BaseModel:\n    INTERLEAVE = False\n")
    picture(1).save(tmp_path / "seen.png")
    (tmp_path / "run.py").write_text(
        "import sys\nfrom vlmeval.config import supported_VLM\nmodel = supported_VLM[sys.argv[2]]()\n"
        f"message = [dict(type='image', value={str(tmp_path / 'seen.png')!r}), dict(type='text', value='What is it?')]\n"
        "print('answer:', model.generate_inner(message, dataset='MMBench'))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("WALLAROO_MODEL", str(compact.folder))
    monkeypatch.setattr(sys, "argv", ["vlmevalkit.py", str(tmp_path / "run.py"), "--model", "wallaroo"])
    generate = type(compact.model).generate
    asked = []

    def briefly(self, **kwargs):
        asked.append(kwargs["max_new_tokens"])
        return generate(self, **{**kwargs, "max_new_tokens": 4})

    monkeypatch.setattr(type(compact.model), "generate", briefly)
    runpy.run_path(str(EXAMPLES / "vlmevalkit.py"), run_name="__main__")
    assert capsys.readouterr().out.startswith("answer: ") and asked == [1024]


def test_video(run, tmp_path):
    film = write_film(tmp_path / "bar.mp4", film_frames(20))
    out = run("video", film, "What happens?", "--fps", 1, "--max-new-tokens", 3)
    assert out.startswith("2 pairs of frames of ") and "1.00 s apart" in out  # at least 4 frames
    for number, frame in enumerate(film_frames(4)):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    assert "2 pairs of frames" in run("video", tmp_path, "What happens?", "--max-new-tokens", 3)
