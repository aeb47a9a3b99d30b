"""README and docs: every `wallaroo` command and every Python block that needs no released weights runs as written.

The pages of the other families have tests of their own beside their code (tests/showo2, tests/hieraquery), with tiny
checkpoints of the names that these pages use.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

from commands import run
from wallaroo_hf import WallarooForConditionalGeneration, WallarooPipeline, WallarooProcessor, default_checkpoint

ROOT = Path(__file__).resolve().parents[1]
OF_OTHER_FAMILIES = ("showo2.md", "hieraquery.md")
PAGES = [
    ROOT / "README.md",
    *sorted(path for path in (ROOT / "docs").glob("*.md") if path.name not in OF_OTHER_FAMILIES),
]
# What a block says -> why it is not run; whatever says none of this is run.
NOT_RUN = {
    r"wallaroo-7b|wallaroo-stage-3b|show-o2|\.ckpt": "needs released weights",
    r"^wallaroo build\b": "needs models of the Hub: tests/hieraquery/test_hieraquery_docs.py",
    r"\.\.\.|…|org/|\$\w|VLMEvalKit": "has gaps for what readers have",
    r"^wallaroo (app|serve)\b": "serves until it is stopped: tests/web/test_command.py, tests/web/test_app.py",
    r"^wallaroo (train scenes|evaluate (ablation|scenes|sweep))\b": "takes hours: tests/training/scenes, tests/evaluation",
    r"\btorchrun |\baccelerate launch ": "needs several processes: tests/training/test_distributed.py",
    r"BitsAndBytesConfig|TorchAoConfig": "needs packages for quantization: tests/modeling/test_low_memory.py",
    r"geneval-out|read_geneval": "needs a benchmark's files: tests/evaluation/test_benchmark_commands.py",
    r"\bclip\.mp4\b": "needs a film and PyAV, an extra: tests/cli/test_videos.py, tests/test_examples.py",
    r"mine:MyConfig": "names classes that readers write: tests/families/test_toy_family.py",
    r"\bopenai\b|OpenAI\(": "needs a server that listens: tests/web/test_openai_client.py",
}
SHORT = ("--steps", "1", "--set", "global_batch_size=1")  # so that training takes a step, not minutes


def _why_not(text):
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, text, re.MULTILINE)), None)


def _blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def _commands(page):
    lines = [line.strip() for block in _blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if re.match(r"(\w+=\S+ )*(.* )?wallaroo \w", line) and not line.startswith("#")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with pictures and rows under the names that pages give them."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "examples" / "finetune" / "posters", tmp_path / "my-pictures")
    (tmp_path / "data.yaml").write_text(
        "- path: my-pictures/metadata.jsonl\n  task: generation\n- path: my-pictures/editing.jsonl\n"
        "- path: my-pictures/questions.jsonl\n"
    )
    mask = Image.new("L", (96, 96), "black")  # of examples/scene.png
    mask.paste("white", (48, 0, 96, 96))
    mask.save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_run(page, folder):
    for command in _commands(page):
        if _why_not(command) is None:
            _, *words = shlex.split(command, comments=True)
            run(*words, *(SHORT if words[0] == "train" and "--dry-run" not in words else ()))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_python_runs_in_the_order_of_the_page(page, folder, built_in):
    """Pages may speak of a `model` and its `processor` without loading them again."""
    names = dict(built_in) if page.name == "windows.md" else {}
    for block in _blocks(page, "python"):
        if _why_not(block) is None:
            exec(compile(block, page.name, "exec"), names)


@pytest.fixture(scope="module")
def built_in():
    model = WallarooForConditionalGeneration.from_pretrained(default_checkpoint(), dtype="float32").eval()
    processor = WallarooProcessor.from_pretrained(default_checkpoint())
    inputs = processor(text=["a green heart"], generation_mode="image", return_tensors="pt")
    pipe = WallarooPipeline(model=model, processor=processor)
    return {"model": model, "processor": processor, "inputs": inputs, "pipe": pipe}


def test_much_is_run():
    """The reasons above do not cover everything by and by."""
    commands = [command for page in PAGES for command in _commands(page) if _why_not(command) is None]
    blocks = [block for page in PAGES for block in _blocks(page, "python") if _why_not(block) is None]
    assert {shlex.split(command)[1] for command in commands} >= {"generate", "edit", "ask", "train"}
    assert len(commands) >= 6 and len(blocks) >= 6


def test_every_reason_is_needed():
    every = [text for page in PAGES for text in (*_commands(page), *_blocks(page, "python"))]
    assert not [pattern for pattern in NOT_RUN if not any(re.search(pattern, text, re.MULTILINE) for text in every)]


def test_the_picture_of_the_examples_is_what_its_questions_are_about():
    picture = Image.open(ROOT / "examples" / "scene.png")
    assert picture.size == (96, 96) and picture.mode == "RGB"
