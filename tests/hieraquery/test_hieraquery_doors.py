"""HieraQuery through the doors: Auto classes, pipelines, answers, commands, server, page and judges."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
    pipeline,
)
from typer.testing import CliRunner

import wallaroo_hf
from commands import run
from films import film_frames
from running_server import RunningServer, data_uri, picture_in, png
from small_hieraquery import picture, save_hieraquery
from wallaroo_hf.cli import app
from wallaroo_hf.conversation import Conversation
from wallaroo_hf.families.contract import TextSettings
from wallaroo_hf.families.registry import abilities_of, find_family, load

DRAW, CHAT = "/v1/images/generations", "/v1/chat/completions"
NO_AUTO = "decide by itself when to draw"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_hieraquery(tmp_path_factory.mktemp("hieraquery"))


@pytest.fixture(scope="module")
def small(folder):
    return load(str(folder), "cpu", "float32")


@pytest.fixture(scope="module")
def pipe(folder):
    return pipeline("text-to-image", model=str(folder), dtype="float32")


def draw(pipe, prompt="a red square", seed=1, **options):
    options = {"num_inference_steps": 8, "output_type": "native", **options}
    return pipe(prompt, generator=torch.Generator().manual_seed(seed), **options).images


def question(processor, *images):
    content = [*({"type": "image", "image": one} for one in images), {"type": "text", "text": "what colour is it?"}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        **{"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True},
    )


def test_auto_classes(folder):
    assert find_family(folder).title == "HieraQuery"
    assert isinstance(AutoConfig.from_pretrained(folder), wallaroo_hf.HieraQueryConfig)
    for auto in (AutoModelForMultimodalLM, AutoModelForImageTextToText):
        assert isinstance(auto.from_pretrained(folder), wallaroo_hf.HieraQueryForConditionalGeneration)
    assert isinstance(AutoProcessor.from_pretrained(folder), wallaroo_hf.HieraQueryProcessor)
    assert isinstance(AutoImageProcessor.from_pretrained(folder), wallaroo_hf.HieraQueryImageProcessor)


def test_settings_of_generation_are_kept(folder, tmp_path):
    model = AutoModelForMultimodalLM.from_pretrained(folder)
    model.generation_config.image_guidance_scale = 2.5
    model.generation_config.max_new_tokens = 3
    model.save_pretrained(tmp_path)
    again = AutoModelForMultimodalLM.from_pretrained(tmp_path)
    assert again.generation_config.image_guidance_scale == 2.5
    inputs = question(AutoProcessor.from_pretrained(folder))
    assert again.generate(**inputs).shape[1] == inputs["input_ids"].shape[1] + 3  # the language model follows them


def test_text_to_image(pipe):
    assert isinstance(pipe, wallaroo_hf.DrawingPipeline)
    image = pipe("a red square", num_inference_steps=8, height=24, width=40).images[0]
    assert image.size == (40, 24)
    assert torch.equal(draw(pipe)[0], draw(pipe)[0]) and not torch.equal(draw(pipe)[0], draw(pipe, seed=2)[0])
    copies = draw(pipe, num_images_per_prompt=2)
    assert len(copies) == 2 and not torch.equal(copies[0], copies[1])
    every = draw(pipe, scales="all")[0]
    assert [tuple(one.shape) for one in every] == [(3, 16, 16), (3, 32, 32)] and torch.equal(every[1], draw(pipe)[0])


def test_image_editing(folder):
    edits = pipeline("image-editing", model=str(folder), dtype="float32")
    red, blue = (draw(edits, "make it green", image=picture(colour))[0] for colour in ((200, 40, 40), (40, 40, 200)))
    assert (red - blue).abs().max() > 1e-3
    wide = picture(size=(70, 30))
    assert edits("make it green", image=wide, num_inference_steps=8).images[0].size == (70, 30)


def test_pipeline_follows_and_stops(pipe):
    seen = []

    def callback(own, step, of, details):
        seen.append((step, of, details["preview"]().size))
        return step < 1

    output = pipe("a red square", num_inference_steps=8, callback_on_step_end=callback)
    assert seen == [(0, 8, (32, 32)), (1, 8, (32, 32))] and not output.complete


def test_what_it_lacks_is_refused(pipe):
    with pytest.raises(TypeError, match="no setting `temperature`; it has `guidance_scale`, `num_inference_steps`"):
        draw(pipe, temperature=0.5)
    with pytest.raises(ValueError, match="takes no negative prompt"):
        draw(pipe, negative_prompt="blue")


@pytest.mark.parametrize("images", [(), (picture(),)], ids=["words", "picture"])
def test_answers_are_the_frozen_models_own(small, images):
    """Before and after something is drawn, which goes through the same language model."""
    model, processor = small.model, small.processor
    inputs = question(processor, *images)
    expected = copy.deepcopy(model.mllm).generate(**inputs, max_new_tokens=12, do_sample=False)
    assert torch.equal(model.generate(**inputs, max_new_tokens=12, do_sample=False), expected)
    batch = processor(text="make it green", images=[picture()], generation_mode="image", return_tensors="pt")
    model.draw(batch, num_inference_steps=2)
    assert torch.equal(model.generate(**inputs, max_new_tokens=12, do_sample=False), expected)

    class Listener:
        def token(self, row, id):
            return None

        def ended(self, row, answer):
            return None

    answer = model.converse(
        inputs,
        **{"mode": "text", "follow": Listener(), "generators": None, "max_new_tokens": [12]},
        **{"text": TextSettings(), "drawing": {}},
    )[0]
    new = expected[0, inputs["input_ids"].shape[1] :].tolist()
    ends = {model.generation_config.eos_token_id}
    assert answer.pieces == [[token for token in new if token not in ends]]


def test_generate_draws_and_refuses(small):
    model, processor = small.model, small.processor
    batch = processor(text="red", generation_mode="image", return_tensors="pt")
    generator = torch.Generator().manual_seed(1)
    latents = model.generate(**batch, generation_mode="image", num_inference_steps=2, generator=generator)
    drawn = model.draw(batch, num_inference_steps=2, generators=torch.Generator().manual_seed(1))
    assert torch.equal(latents[0], drawn.native[0])
    with pytest.raises(ValueError, match=NO_AUTO):
        model.generate(**batch, generation_mode="auto")
    with pytest.raises(ValueError, match="`scales` is for drawing; pass generation_mode='image'"):
        model.generate(input_ids=batch["input_ids"], scales="all")
    with pytest.raises(ValueError, match="no drawing setting `do_sample`"):
        model.generate(**batch, generation_mode="image", do_sample=True)
    with pytest.raises(ValueError, match=NO_AUTO):
        model.converse(
            batch,
            **{"mode": "auto", "follow": None, "generators": None, "max_new_tokens": [4]},
            **{"text": TextSettings(), "drawing": {}},
        )


def test_a_chat_answers(small):
    chat = Conversation(small.model, small.processor, max_new_tokens=5)
    first = chat.say("what colour is it?", images=[picture()])
    second = chat.say("blue?")
    assert all(isinstance(piece, str) for piece in (*first, *second))
    assert [message["role"] for message in chat.messages] == ["user", "assistant", "user"]


def test_commands(folder, tmp_path):
    steps = ("--set", "num_inference_steps=8")
    drawn = json.loads(
        run("generate", "a red square", "-m", folder, "-o", tmp_path, "--seed", 1, *steps, "--json").splitlines()[-1]
    )
    with Image.open(drawn["path"]) as image:
        assert image.size == (32, 32) and json.loads(image.info["settings"])["num_inference_steps"] == 8
    edited = run("edit", drawn["path"], "make it green", "-m", folder, "-o", tmp_path, "--seed", 1, *steps, "--json")
    with Image.open(json.loads(edited.splitlines()[-1])["path"]) as image:
        assert image.size == (32, 32)
    refused = run("generate", "red", "-m", folder, "-o", tmp_path, "--temperature", 0.5, code=1)
    assert "no setting `temperature`; it has `guidance_scale`" in " ".join(refused.split())
    refused = run("generate", "red", "-m", folder, "-o", tmp_path, "--negative-prompt", "blue", code=1)
    assert "takes no negative prompt" in " ".join(refused.split())
    run("ask", drawn["path"], "what colour is it?", "-m", folder)


def test_chat_command_says_that_it_only_answers(folder, tmp_path, monkeypatch):
    lines = iter(["what colour is it?"])

    def answer(prompt=""):
        try:
            return next(lines)
        except StopIteration as error:
            raise EOFError from error

    monkeypatch.setattr("builtins.input", answer)
    out = run("chat", "-m", folder, "-o", tmp_path, "--max-new-tokens", 3)
    assert "This HieraQuery checkpoint answers in a chat; pictures are drawn by `wallaroo generate`." in out


def test_info(folder):
    facts = json.loads(run("info", folder, "--json"))
    parts = {"language model", "vision encoder", "queries", "connector", "diffusion transformer", "alignment head"}
    assert facts["family"] == "HieraQuery" and set(facts["parameters"]) == {*parts, "total"}
    assert facts["parameters"]["total"] == sum(facts["parameters"][part] for part in parts)
    assert facts["queries"] == [1, 4] and facts["diffusion_transformer"] == "SanaTransformer2DModel"
    assert facts["sampling"]["num_inference_steps"] == 30 and facts["sampling"]["guidance_scale"] == 5.0
    positions, layers, width = 1 + 2 + 4 + 2, 2, 16  # queries with START and END, one head of 16 for keys and values
    assert facts["cache_bytes_per_image"] == positions * 2 * layers * width * 4  # float32
    told = " ".join(run("info", folder).split())
    assert "1 + 4 = 5, coarse to fine" in told and "2.25 KiB of cache per image" in told


def test_server(small):
    server = RunningServer(small.model, small.processor)
    try:
        _serve(server)
    finally:
        server.stop()


def _serve(server):
    body = {"prompt": "a red square", "seed": 1, "num_inference_steps": 8, "guidance_scale": 2}
    status, answer, _ = server.request(DRAW, body)
    image = picture_in(answer["data"][0]["b64_json"])
    assert status == 200 and image.size == (32, 32)
    assert picture_in(server.request(DRAW, body)[1]["data"][0]["b64_json"]).tobytes() == image.tobytes()
    status, answer, _ = server.request(DRAW, {**body, "negative_prompt": "blue"})
    assert status == 400 and "takes no negative prompt" in answer["error"]["message"]
    shown = data_uri(png(picture((10, 200, 10))))
    status, answer, _ = server.request("/v1/images/edits", {**body, "image": shown})
    assert status == 200 and picture_in(answer["data"][0]["b64_json"]).size == picture_in(shown.split(",")[1]).size
    content = [{"type": "image_url", "image_url": {"url": shown}}, {"type": "text", "text": "what colour is it?"}]
    chat = {"messages": [{"role": "user", "content": content}], "max_tokens": 4}
    status, answer, _ = server.request(CHAT, chat)
    assert status == 200 and 0 < answer["usage"]["completion_tokens"] <= 4
    status, answer, _ = server.request(CHAT, {**chat, "modalities": ["text", "image"]})
    assert status == 400 and NO_AUTO in answer["error"]["message"] and answer["error"]["param"] == "modalities"
    status, answer, _ = server.request(CHAT, {**chat, "modalities": ["image"], "num_inference_steps": 8})
    assert status == 200


def test_the_page_draws(small, tmp_path):
    pytest.importorskip("gradio", reason="the web page needs gradio: pip install 'wallaroo-hf[app]'")
    from wallaroo_hf.web.app import build_app
    from wallaroo_hf.web.app_engine import Engine, Settings

    engine = Engine(small.model, small.processor, "hieraquery", tmp_path)
    components = list(build_app(engine).blocks.values())
    assert {"tab-draw", "tab-edit", "tab-ask"} <= {one.elem_id for one in components if type(one).__name__ == "Tab"}
    assert {"Steps", "Guidance"} <= {one.label for one in components if type(one).__name__ == "Slider"}
    *_, last = engine.draw("me", Settings("a red square", seed=5, sampling={"num_inference_steps": 8}))
    assert last.images[0].size == (32, 32) and not last.stopped


def test_scenes(folder, tmp_path):
    def evaluate(name, *arguments, code=0):
        given = [*map(str, arguments), "-m", str(folder), "-o", str(tmp_path / name), "--device", "cpu"]
        result = CliRunner().invoke(app, ["evaluate", "scenes", *given], env={"COLUMNS": "200"})
        assert result.exit_code == code, result.output + repr(result.exception)
        return result.stdout if code == 0 else result.stderr

    tasks = "reconstruction,generation,understanding,editing"
    few = ("--items", 2, "--set", "num_inference_steps=2")
    scores = json.loads(evaluate("out", "--tasks", tasks, *few, "--json"))
    assert list(scores["tasks"]) == tasks.split(",")
    assert scores["settings"]["num_inference_steps"] == 2 and scores["settings"]["guidance_scale"] == 5.0
    refused = evaluate("no", *few, code=1)
    assert f"does not do drawing in chats, so leave chat out (--tasks {tasks})" in refused


def test_answers_about_videos_are_the_frozen_models_own(small):
    """Frames as Qwen2.5-VL's processor brings them; positions and answers by the language model alone."""
    model, processor = small.model, small.processor
    content = [{"type": "video", "video": film_frames(6)}, {"type": "text", "text": "what colour is it?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={
            "videos_kwargs": {"size": {"shortest_edge": 64, "longest_edge": 256}, "video_metadata": [{"fps": 2.0}]}
        },
    )
    assert inputs["video_grid_thw"][0, 0] == 3 and inputs["second_per_grid_ts"].tolist() == [1.0]
    assert (inputs["mm_token_type_ids"] == 2).sum() == inputs["video_grid_thw"].prod() // 4
    expected = copy.deepcopy(model.mllm).generate(**inputs, max_new_tokens=6, do_sample=False)
    assert torch.equal(model.generate(**inputs, max_new_tokens=6, do_sample=False), expected)
    assert "video" in abilities_of(model, processor).tasks and "video" not in processor.tasks
