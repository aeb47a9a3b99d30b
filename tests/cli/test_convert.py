"""`wallaroo convert`: the family is recognised by what was released, and takes its own options alone."""

from __future__ import annotations

import json

import pytest
import torch

from commands import run
from released_showo2 import Workshop, released_weights
from wallaroo_hf.families.registry import find_family
from wallaroo_hf.showo2.showo2_tokens import ADDED_TOKENS


@pytest.fixture
def released(tmp_path, compact):
    """A tiny Show-o2 as its authors release it, for the compact set's tokenizer."""
    workshop = Workshop(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (workshop.base / name).write_bytes((compact.base / name).read_bytes())
    tokens = json.loads((compact.base / "tokenizer.json").read_text(encoding="utf-8"))
    ids = {*tokens["model"]["vocab"].values(), *(token["id"] for token in tokens["added_tokens"])}
    rows = max(ids) + 1 + len(ADDED_TOKENS)
    workshop.set_base(vocab_size=rows)
    workshop.save(released_weights(text={"vocab_size": rows}), shards=2)
    return workshop


def arguments(workshop, *left_out):
    """Of the command, with everything that Show-o2 needs but some of it."""
    given = {"--checkpoint": workshop.checkpoint, "--vae": workshop.vae, "--base": workshop.base}
    given |= {"--vision": workshop.vision, "--output": workshop.output}
    return ["convert", *(word for pair in given.items() if pair[0] not in left_out for word in pair)]


def test_show_o2_is_recognised(released):
    out = run(*arguments(released), "--dtype", "float32", "--max-shard-size", "50KB")
    assert str(released.output) in out.replace("\n", "")
    assert find_family(released.output).title == "Show-o2" and (released.output / "tokenizer.json").is_file()
    assert len(list(released.output.glob("model-*.safetensors"))) > 1


@pytest.mark.parametrize(
    ("more", "left_out", "words"),
    [
        (("--vq", "x.pt"), (), "is Show-o2, whose conversion has no --vq; leave it out."),
        (("--stage", "2", "--vq", "x.pt"), (), "has no --vq, --stage; leave"),
        ((), ("--vae",), "is Show-o2, which needs --vae as well"),
        ((), ("--vision", "--base"), "needs --base, --vision as well"),
        ((), ("--checkpoint",), "Give --checkpoint"),
        (("--vq-only",), (), "leave out --checkpoint, --base, --vae, --vision."),
        (("--dtype", "int4"), (), "'int4'"),
    ],
)
def test_options_that_do_not_belong_to_it_are_named(released, more, left_out, words):
    out = run(*arguments(released, *left_out), *more, code=1).replace("\n", " ")
    assert words in out and "Traceback" not in out and not released.left_behind()


def test_wallaroo_has_no_options_of_others(compact, tmp_path):
    common = ("convert", "--checkpoint", compact.checkpoint, "--base", compact.base, "-o", tmp_path / "out")
    out = run(*common, "--vq", compact.vq, "--vae", "x.pth", "--vision", "y", code=1).replace("\n", " ")
    assert "is Wallaroo, whose conversion has no --vae, --vision; leave" in out
    assert "is Wallaroo, which needs --vq as well" in run(*common, code=1).replace("\n", " ")
    assert not list(tmp_path.iterdir())


def test_what_is_of_no_family_is_refused(released, tmp_path):
    torch.save({"transformer.wte.weight": torch.zeros(2, 2)}, tmp_path / "gpt.bin")
    out = run(*arguments(released, "--checkpoint"), "--checkpoint", tmp_path / "gpt.bin", code=1).replace("\n", " ")
    assert "is no Wallaroo or Show-o2 as released" in out and "transformer.wte.weight" in out
    out = run(*arguments(released, "--checkpoint"), "--checkpoint", tmp_path / "nowhere", code=1).replace("\n", " ")
    assert "does not exist" in out and not released.left_behind()


def test_an_image_tokenizer_alone_must_be_given(tmp_path):
    assert "give it as --vq" in run("convert", "--vq-only", "-o", tmp_path / "out", code=1).replace("\n", " ")
