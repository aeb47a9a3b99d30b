"""`wallaroo chat`, `info`, `export`, output for scripts, and completion."""

import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from commands import json_lines, run, runner
from helpers import picture
from wallaroo_hf import WallarooConfig, WallarooPipeline, default_checkpoint
from wallaroo_hf.cli import app, export
from wallaroo_hf.files import checkpoint_files


def test_json_lines_of_drawings(compact, tmp_path):
    common = ("--model", compact.folder, "--height", 32, "--width", 48, "--device", "cpu")
    rows = json_lines("generate", "a cat", "蓝色", "--seed", 3, "-o", tmp_path / "out", *common)
    assert [(row["prompt"], row["seed"], row["width"], row["height"]) for row in rows] == [
        ("a cat", 3, 48, 32),
        ("蓝色", 4, 48, 32),
    ]
    assert all(row["complete"] and Image.open(row["path"]).size == (48, 32) for row in rows)
    picture(1).save(tmp_path / "source.png")
    (row,) = json_lines("edit", tmp_path / "source.png", "bluer", "--seed", 1, "-o", tmp_path / "edit.png", *common)
    assert row["path"] == str(tmp_path / "edit.png")


def test_edits_within_a_mask_and_beyond_the_edges(compact, tmp_path):
    source, mask = picture(1, 48, 32), Image.new("L", (48, 32), 0)
    mask.paste(255, (0, 0, 16, 16))
    source.save(tmp_path / "source.png")
    mask.save(tmp_path / "mask.png")
    common = ("edit", tmp_path / "source.png", "bluer", "--seed", 1, "--model", compact.folder, "--device", "cpu")
    json_lines(*common, "--mask", tmp_path / "mask.png", "-o", tmp_path / "edit.png")
    edited = Image.open(tmp_path / "edit.png")
    assert edited.size == (48, 32) and str(tmp_path / "mask.png") in "".join(map(str, edited.info.values()))
    for box in ((16, 0, 48, 32), (0, 16, 16, 32)):
        assert edited.crop(box).tobytes() == source.crop(box).tobytes()
    assert edited.crop((0, 0, 16, 16)).tobytes() != source.crop((0, 0, 16, 16)).tobytes()
    (row,) = json_lines(*common, "--outpaint", "left=16,bottom=32", "-o", tmp_path / "wide.png")
    assert (row["width"], row["height"]) == (64, 64)
    assert Image.open(row["path"]).crop((16, 0, 64, 32)).tobytes() == source.tobytes()


def test_edits_of_several_images(compact, tmp_path):
    """As the pipeline makes them; the last one is changed."""
    first, second = picture(1, 48, 32), picture(2, 32, 48)
    paths = [tmp_path / "first.png", tmp_path / "second.png"]
    for image, path in zip((first, second), paths, strict=True):
        image.save(path)
    common = ("both", "--seed", 1, "--model", compact.folder, "--device", "cpu", "-o", tmp_path / "edit.png")
    (row,) = json_lines("edit", *paths, *common)
    assert run("edit", *paths, *common).count("was not trained on edits of several pictures, so expect little.") == 1
    pipe = WallarooPipeline(model=compact.model, processor=compact.processor, device="cpu")
    expected = pipe("both", image=[[first, second]], generator=torch.Generator().manual_seed(1)).images[0]
    assert (row["width"], row["height"]) == (32, 48) == expected.size
    assert Image.open(row["path"]).tobytes() == expected.tobytes()


def test_json_of_an_answer(compact, tmp_path):
    picture(1).save(tmp_path / "source.png")
    arguments = ("ask", tmp_path / "source.png", "What is it?", "-m", compact.folder, "--max-new-tokens", 5)
    (answer,) = json_lines(*arguments)
    assert answer["question"] == "What is it?" and answer["images"] == [str(tmp_path / "source.png")]
    assert answer["answer"].strip() == run(*arguments).strip()


def test_info(compact):
    (facts,) = json_lines("info")
    assert facts["tasks"] == ["understanding", "text-to-image", "image-editing", "inpainting", "composition", "video"]
    assert facts["untrained"] == ["composition", "video"]
    assert facts["languages"] == ["en", "zh"]
    assert [96, 96] in facts["sizes"] and facts["codebook_size"] == 1024
    with safe_open(f"{default_checkpoint()}/model.safetensors", framework="pt") as file:
        total = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    parts = dict(facts["parameters"])
    assert parts.pop("total") == total == sum(parts.values())
    codes = max(height * width for height, width in facts["sizes"]) // 16**2
    text = WallarooConfig.from_pretrained(default_checkpoint()).text_config
    width = text.hidden_size // text.num_attention_heads * text.num_key_value_heads
    assert facts["cache_bytes_per_image"] == codes * 2 * 2 * text.num_hidden_layers * width * 2  # bfloat16
    out = run("info", compact.folder)
    assert "image-editing" in out and "parameters" in out


def test_info_names_what_is_wrong(compact, tmp_path):
    assert "does not exist" in run("info", tmp_path / "nowhere", code=1)
    assert "no config.json" in run("info", tmp_path, code=1)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    assert "'llama'" in run("info", tmp_path, code=1)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    assert "could not be read" in run("info", tmp_path, code=1).replace("\n", " ")


def test_info_imports_no_torch():
    script = (
        "import sys\n"
        "sys.argv = ['wallaroo', 'info', '--json']\n"
        "import wallaroo_hf_launcher\n"
        "try:\n"
        "    wallaroo_hf_launcher.main()\n"
        "except SystemExit as done:\n"
        "    assert not done.code and 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and '"tasks"' in done.stdout, done.stderr


def _chat(tmp_path, *lines, flags=()):
    arguments = ["chat", "--seed", "1", "-o", str(tmp_path / "pictures"), *flags]
    result = runner.invoke(app, arguments, input="\n".join(lines) + "\n")
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result


def test_chat_draws_and_goes_on_after_mistakes(tmp_path):
    picture(1).save(tmp_path / "mine.png")
    lines = ("Draw a red circle.", "/image nowhere.png", "/nonsense", f"/image {tmp_path / 'mine.png'}", "What is it?")
    result = _chat(tmp_path, *lines, "/new", "/help", "/quit", "never said")
    path = tmp_path / "pictures" / "draw-a-red-circle-1.png"
    assert f"[{path}]" in result.stdout and Image.open(path).text["prompt"] == "Draw a red circle."
    assert "nowhere.png' does not exist" in result.stderr and "/nonsense" in result.stderr
    assert result.stdout.count("/image PATH") == 1
    assert "never said" not in "".join(entry.name for entry in (tmp_path / "pictures").iterdir())


def test_chat_shows_pictures_where_it_is_told_to(tmp_path):
    assert "\x1b_Ga=T" in _chat(tmp_path, "Draw a red circle.", flags=["--show", "kitty"]).stdout
    assert "\x1b]1337" in _chat(tmp_path, "Draw a red circle.", flags=["--show", "iterm2"]).stdout
    assert "\x1b" not in _chat(tmp_path, "Draw a red circle.").stdout


def test_chat_has_the_settings_of_guidance(monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr("wallaroo_hf.conversation.Conversation", lambda *given: made.append(given))
    _chat(tmp_path, "/quit", flags=["--guidance-scale", "2", "--guidance-min-p", "0.1"])
    assert made[0][-2:] == (2.0, 0.1)
    monkeypatch.undo()
    result = runner.invoke(app, ["chat", "--guidance-min-p", "7"])
    assert result.exit_code == 1 and "`guidance_min_p` is 7.0, but must be a number" in result.stderr


def test_export(compact, tmp_path):
    out = run("export", "--to", "qwen2.5-vl", "-m", compact.folder, "-o", tmp_path / "qwen")
    assert "Qwen2.5-VL" in out and (tmp_path / "qwen" / "preprocessor_config.json").exists()
    samples = ("--sample", "a red circle", "--license", "apache-2.0", "--base-model", "org/base")
    run("export", "--to", "hub", "-o", tmp_path / "hub", *samples)
    assert Image.open(tmp_path / "hub" / "samples.png").width > 50
    assert "1. a red circle" in (tmp_path / "hub" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--to", "qwen2.5-vl", "--license", "mit", "-o", "out"), "--license is for --to hub"),
        (("--to", "hub"), "either --output"),
        (("--to", "hub", "-o", "out", "--push", "a/b"), "either --output"),
        (("--to", "qwen2.5-vl", "-m", "nowhere", "-o", "out"), "does not exist"),
        (("--to", "hub", "--max-shard-size", "1GB", "-o", "out"), "--max-shard-size is for --to qwen2.5-vl"),
    ],
)
def test_export_refuses(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert words in run("export", *arguments, code=1) and not list(tmp_path.iterdir())


def test_export_draws_samples_with_the_revision_that_it_exports(tmp_path, monkeypatch):
    revisions = []

    def download(name, revision, allow_patterns):
        revisions.append(revision)
        return default_checkpoint()

    monkeypatch.setattr(checkpoint_files, "snapshot_download", download)
    arguments = ("--to", "hub", "-m", "org/small", "--revision", "v1", "--sample", "a red circle")
    run("export", *arguments, "-o", tmp_path / "hub")
    assert revisions == ["v1"] and (tmp_path / "hub" / "samples.png").exists()


def test_export_looks_at_its_output_before_it_draws(tmp_path, monkeypatch):
    def draw(*arguments):
        raise AssertionError("drawn for nothing")

    monkeypatch.setattr(export, "_draw_samples", draw)
    (tmp_path / "mine").touch()
    out = run("export", "--to", "hub", "--sample", "a red circle", "-o", tmp_path, code=1)
    assert "already exists and is not empty" in out.replace("\n", " ")


def test_generate_needs_one_kind_of_prompts(tmp_path):
    (tmp_path / "p.txt").write_text("a", encoding="utf-8")
    assert "either prompts or --prompts" in run("generate", code=1)
    assert "either prompts or --prompts" in run("generate", "a", "--prompts", tmp_path / "p.txt", code=1)


def test_completion_knows_the_commands():
    """As a shell asks after `wallaroo ex<Tab>`."""
    asked = {"_WALLAROO_COMPLETE": "complete_bash", "COMP_WORDS": "wallaroo ex", "COMP_CWORD": "1"}
    result = runner.invoke(app, [], env=asked, prog_name="wallaroo")
    assert result.output.split() == ["export"]


def test_published_evaluation_does_not_depend_on_the_batch(compact, tmp_path):
    """Its padding is attended, so prompts of other lengths in a batch would change a picture."""
    common = ("--model", compact.folder, "--height", 32, "--width", 48, "--device", "cpu")
    prompts = ("a", "a cat with a very long description that takes many more tokens")
    for size in (1, 4):
        output = ("--batch-size", size, "--output", tmp_path / str(size))
        json_lines("generate", *prompts, "--seed", 3, "--published-eval", *output, *common)
    one, other = (sorted((tmp_path / size).iterdir()) for size in ("1", "4"))
    assert [path.name for path in one] == [path.name for path in other] and len(one) == 2
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
