"""Questions to a Show-o2 at every door: videos, and the sequences of the authors' scripts (`published_eval`)."""

from __future__ import annotations

import importlib
import sys
import types

import pytest
import torch

from commands import run
from small_showo2 import picture, save_showo2
from wallaroo_hf.cli.given import frames_in, names_a_video
from wallaroo_hf.conversation import Conversation
from wallaroo_hf.evaluation.answers import answer
from wallaroo_hf.families.registry import load
from wallaroo_hf.showo2 import ShowO2Processor

WORDS = "what colour is it?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_showo2(tmp_path_factory.mktemp("showo2"))


@pytest.fixture(scope="module")
def checkpoint(folder):
    return load(str(folder), "cpu", "float32")


@pytest.fixture
def frames(tmp_path):
    """Five pictures whose numbers are not in the order of their letters."""
    (tmp_path / "clip").mkdir()
    for number in (1, 2, 9, 10, 11):
        picture((number * 20, 0, 0)).save(tmp_path / "clip" / f"f{number}.png")
    (tmp_path / "clip" / "notes.txt").touch()
    return tmp_path / "clip"


@pytest.fixture
def prepared(monkeypatch):
    """What the processor was called with, and what came of it."""
    calls = []
    call = ShowO2Processor.__call__

    def listen(self, *args, **kwargs):
        inputs = call(self, *args, **kwargs)
        calls.append((kwargs, inputs))
        return inputs

    monkeypatch.setattr(ShowO2Processor, "__call__", listen)
    return calls


def the_sentence(*arguments):
    return " ".join(run(*arguments, code=1).split())


def test_a_folder_of_frames_is_a_video(folder, frames, tmp_path, prepared):
    picture().save(tmp_path / "a.png")
    run("ask", tmp_path / "a.png", frames, WORDS, "-m", folder, "--num-frames", 2, "--max-new-tokens", 2)
    kwargs, inputs = prepared[-1]
    assert [path.rpartition("/")[2] for path in kwargs["videos"][0]] == [
        "f1.png",
        "f2.png",
        "f9.png",
        "f10.png",
        "f11.png",
    ]
    shapes = [tuple(pixels.shape) for pixels in inputs["pixel_values"]]
    assert shapes == [(3, 32, 32), (2, 3, 32, 32)]  # in the order that they were given in


def test_what_is_a_video(frames, tmp_path):
    assert names_a_video("clip.MP4") and names_a_video("https://a.b/c.webm?d=1") and names_a_video(str(frames))
    assert (
        not names_a_video("data:image/png;base64," + "A" * 9000)
        and not names_a_video("clip.png")
        and not names_a_video("a clip of mp4")
    )
    with pytest.raises(ValueError, match="holds no pictures"):
        frames_in(str(tmp_path))


def test_videos_that_cannot_be_asked_about(folder, frames, tmp_path):
    picture().save(tmp_path / "a.png")
    refused = the_sentence("ask", frames, WORDS, "-m", folder, "--fps", 2)
    assert "A Show-o2 checkpoint takes no --fps; say --num-frames, or leave it out" in refused
    assert "--num-frames is for videos" in the_sentence("ask", tmp_path / "a.png", WORDS, "--num-frames", 3)
    refused = the_sentence("ask", tmp_path / "clip.mp4", WORDS, "-m", folder, "--num-frames", 1)
    assert "clip.mp4' does not exist" in refused or "need a decoder" in refused  # of either this machine may lack


def test_settings_of_drawings_are_none_of_answers(folder, tmp_path):
    picture().save(tmp_path / "a.png")
    asked = ("ask", tmp_path / "a.png", WORDS)
    assert "`published_eval` is a setting of what is drawn" in the_sentence(*asked, "--published-eval")  # Wallaroo's
    for given, words in (
        ("guidance_scale=3", "`guidance_scale` is a setting of what is drawn, not of answers"),
        ("temperature=1", "no setting `temperature`; it has `guidance_scale`"),
        ("scheduler=euler", "`scheduler` cannot be told as text"),
    ):
        assert words in the_sentence(*asked, "-m", folder, "--set", given)
    drawn = ("generate", "red", "-m", folder, "-o", tmp_path, "--set", "scheduler=euler")
    assert "`scheduler` cannot be told as text" in the_sentence(*drawn)


def test_published_questions_by_the_command(folder, checkpoint, tmp_path, prepared):
    """Both are told: the processor leaves out the end of the turn, the model shifts its mask and samples the latents."""
    picture().save(tmp_path / "a.png")
    torch.manual_seed(3)
    said = run(
        "ask", tmp_path / "a.png", WORDS, "-m", folder, "--published-eval", "--max-new-tokens", 8, "--dtype", "float32"
    )
    processor, model = checkpoint.processor, checkpoint.model
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": WORDS}]}], add_generation_prompt=True
    )
    inputs = processor(text=[text], images=[picture()], published_eval=True, return_tensors="pt")
    assert torch.equal(prepared[0][1]["input_ids"], inputs["input_ids"])
    torch.manual_seed(3)
    tokens = model.generate(**inputs, published_eval=True, do_sample=False, max_new_tokens=8)
    assert (
        said.strip()
        == processor.tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    )
    plain = processor(text=[text], images=[picture()], return_tensors="pt")
    assert plain["input_ids"].shape[1] > inputs["input_ids"].shape[1]


@pytest.mark.parametrize("published", [False, True])
def test_published_questions_in_python(checkpoint, prepared, published):
    settings = {"published_eval": published, "num_inference_steps": 2}
    chat = Conversation(checkpoint.model, checkpoint.processor, max_new_tokens=2, settings=settings)
    chat.say(WORDS, images=[picture()])
    assert prepared[-1][0].get("published_eval") is published
    told = {"published_eval": True} if published else {}
    answer(checkpoint.model, checkpoint.processor, [[picture(), WORDS]], told, do_sample=False, max_new_tokens=2)
    assert prepared[-1][0].get("published_eval", False) is published


def test_lmms_eval_asks_without_a_recipe_for_edits(folder, monkeypatch, prepared):
    for name in ("lmms_eval", "lmms_eval.api", "lmms_eval.api.model"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    base = type("StandIn", (), {"cache_hook": types.SimpleNamespace(add_partial=lambda *entry: None)})
    sys.modules["lmms_eval.api.model"].lmms = base
    monkeypatch.delitem(sys.modules, "wallaroo_hf.evaluation.lmms_eval_model", raising=False)
    module = importlib.import_module("wallaroo_hf.evaluation.lmms_eval_model")
    try:
        subject = module.WallarooLmmsEval(str(folder), device="cpu", published_eval=True, max_new_tokens=2)
        subject.task_dict = {"task": {"test": [[picture()]]}}
        request = types.SimpleNamespace(args=(WORDS, {}, lambda doc: doc, 0, "task", "test"))
        assert len(subject.generate_until([request])) == 1
        assert prepared[-1][0]["published_eval"] is True
        with pytest.raises(ValueError, match="Show-o2 has no recipe for imgedit"):
            module.WallarooLmmsEval(str(folder), mode="drawing", device="cpu")
    finally:
        sys.modules.pop("wallaroo_hf.evaluation.lmms_eval_model", None)
