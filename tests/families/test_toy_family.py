"""A stranger's family through the doors: what is here for all of them, the others beside their own tests."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForMultimodalLM, AutoProcessor, pipeline

from commands import run
from helpers import picture
from toy_family import ToyModel, ToyProcessor, save_toy
from wallaroo_hf import DrawingPipeline
from wallaroo_hf.conversation import Conversation
from wallaroo_hf.families.registry import FAMILIES, find_family, load

RED = (255, 0, 0)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return save_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def pipe(toy):
    return pipeline("text-to-image", model=toy)


def is_flat(image, colour=RED):
    return image.getcolors() == [(image.width * image.height, colour)]


def test_registry_and_auto_classes(toy):
    assert find_family(toy).title == "Toy" and "toy" in FAMILIES
    checkpoint = load(toy, "cpu")
    assert isinstance(checkpoint.model, ToyModel) and isinstance(checkpoint.processor, ToyProcessor)
    assert not checkpoint.model.training and checkpoint.abilities.special_tokens == ("<end>",)
    assert isinstance(AutoModelForMultimodalLM.from_pretrained(toy), ToyModel)
    assert isinstance(AutoProcessor.from_pretrained(toy), ToyProcessor)


def test_pipeline(pipe):
    assert isinstance(pipe, DrawingPipeline)
    image = pipe("a red thing", height=64, width=128).images[0]
    assert image.size == (128, 64) and is_flat(image)
    two = pipe(["red", "blue"], num_images_per_prompt=2, output_type="pt").images
    assert [one.mean(dim=(1, 2)).round().tolist() for one in two] == [[1, 0, 0]] * 2 + [[0, 0, 1]] * 2
    latents = pipe("red", output_type="native").images
    assert latents[0].shape == (3, 12, 12)


def test_pipeline_follows_and_stops(pipe):
    seen = []

    def callback(own, step, of, details):
        seen.append((step, of, details["image"], details["preview"]().size))
        return step < 1

    generator = torch.Generator().manual_seed(1)
    output = pipe("red", generator=generator, num_inference_steps=5, callback_on_step_end=callback)
    assert seen == [(0, 5, 0, (96, 96)), (1, 5, 0, (96, 96))]
    assert not output.complete and not is_flat(output.images[0])


def test_settings_that_it_lacks_are_refused_by_name(pipe):
    with pytest.raises(TypeError, match=r"no setting `temperature`; it has `num_inference_steps`, `guidance_scale`"):
        pipe("red", temperature=1.0)
    with pytest.raises(ValueError, match="`num_inference_steps` is 0, but must be a whole number from 1 to 50"):
        pipe("red", num_inference_steps=0)
    with pytest.raises(ValueError, match="does not do image-editing"):
        pipe("red", image=picture(1))
    with pytest.warns(UserWarning, match="`guidance_scale` is 9; this checkpoint does well between 1 and 5"):
        pipe("red", guidance_scale=9.0)


def test_commands(toy, tmp_path):
    out = run(
        "generate", "a red thing", "-m", toy, "-o", tmp_path, "--seed", 1, "--set", "num_inference_steps=2", "--json"
    )
    drawn = json.loads(out.splitlines()[-1])
    with Image.open(drawn["path"]) as image:
        assert is_flat(image.convert("RGB"))
        assert json.loads(image.info["settings"])["num_inference_steps"] == 2
    out = run("generate", "red", "-m", toy, "-o", tmp_path, "--temperature", 0.5, code=1).replace("\n", " ")
    assert "no setting `temperature`; it has `num_inference_steps`, `guidance_scale`" in out
    assert "Note: `guidance_scale` is 9" in run("generate", "red", "-m", toy, "-o", tmp_path, "--guidance-scale", 9)
    path = tmp_path / "source.png"
    picture(1).save(path)
    assert "does not do image-editing" in run("edit", path, "red", "-m", toy, code=1).replace("\n", " ")
    assert run("ask", path, "What is it?", "-m", toy).strip() == "ok"


def test_prompts_file(toy, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("red\nblue\n", encoding="utf-8")
    run("generate", "--prompts", prompts, "-m", toy, "-o", tmp_path / "out")
    files = sorted((tmp_path / "out").glob("*.png"))
    assert len(files) == 2 and is_flat(Image.open(files[0]).convert("RGB"))


def test_info(toy):
    facts = json.loads(run("info", toy, "--json"))
    assert facts["family"] == "Toy" and facts["tasks"] == ["understanding", "text-to-image"]
    assert facts["parameters"] == {"colours": 1, "total": 1}
    assert facts["sampling"] == {"num_inference_steps": 4, "guidance_scale": 2.0}
    assert "Toy" in run("info", toy) and "code" not in run("info", toy)


def test_conversation(toy):
    checkpoint = load(toy, "cpu")
    chat = Conversation(checkpoint.model, checkpoint.processor, settings={"num_inference_steps": 3})
    seen = []
    answer = chat.say("red please", on_row=lambda preview, done, of: seen.append((preview().size, done, of)))
    assert is_flat(answer[0]) and answer[1:] == ["ok"] and seen[-1] == ((96, 96), 3, 3)
    assert chat.say("and now?") == ["ok"]
    stopped = chat.say("blue", on_row=lambda preview, done, of: False)
    assert len(stopped) == 1 and chat.partial
    with pytest.raises(ValueError, match="no setting `guidance_min_p`"):
        Conversation(checkpoint.model, checkpoint.processor, guidance_min_p=0.1)


def test_chat_command(toy, tmp_path, monkeypatch):
    lines = iter(["red", "hello"])

    def answer(prompt=""):
        try:
            return next(lines)
        except StopIteration as error:
            raise EOFError from error

    monkeypatch.setattr("builtins.input", answer)
    assert "ok" in run("chat", "-m", toy, "-o", tmp_path)
    assert is_flat(Image.open(next(Path(tmp_path).glob("*.png"))).convert("RGB"))


def test_commands_hide_their_own_notices_only(toy, tmp_path, monkeypatch):
    draw = ToyModel.draw

    def warn_and_draw(*arguments, **settings):
        warnings.warn("the device is slow", UserWarning, stacklevel=1)
        return draw(*arguments, **settings)

    monkeypatch.setattr(ToyModel, "draw", warn_and_draw)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("red\nblue\n", encoding="utf-8")
    for asked in (["red"], ["--prompts", prompts]):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            out = run("generate", *asked, "-m", toy, "-o", tmp_path / "out", "--guidance-scale", 9)
        assert out.count("Note: `guidance_scale` is 9") == 1
        assert {str(one.message) for one in caught if one.category is not ResourceWarning} == {"the device is slow"}
