"""A stranger's family through the server and the page: its fields, sliders, tabs and words, and what it lacks."""

from __future__ import annotations

import dataclasses

import pytest
from PIL import Image

from helpers import picture
from running_server import RunningServer, data_uri, picture_in, png
from toy_family import save_toy
from wallaroo_hf.families.abilities import GENERATION, UNDERSTANDING
from wallaroo_hf.families.registry import load
from wallaroo_hf.families.settings import Setting
from wallaroo_hf.web.schemas import ChatBody, GenerationBody, with_settings
from wallaroo_hf.web.server_settings import ServerSettings
from wallaroo_hf.web.service import Service

RED = (255, 0, 0)
DRAW, CHAT = "/v1/images/generations", "/v1/chat/completions"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return load(save_toy(tmp_path_factory.mktemp("toy")), "cpu")


@pytest.fixture(scope="module")
def toy_server(toy):
    server = RunningServer(toy.model, toy.processor)
    yield server
    server.stop()


def is_red(image: Image.Image) -> bool:
    return image.convert("RGB").getcolors() == [(image.width * image.height, RED)]


def _refused(answer) -> tuple[str, str]:
    assert answer[0] == 400, answer
    return answer[1]["error"]["message"], answer[1]["error"]["param"]


def _says(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


# ---------------------------------------------------------------------------------------------------------- server


def test_draws(toy_server):
    status, answer, _ = toy_server.request(DRAW, {"prompt": "a red thing", "seed": 1, "num_inference_steps": 3})
    image = picture_in(answer["data"][0]["b64_json"])
    assert status == 200 and answer["size"] == "96x96" and is_red(image) and "notices" not in answer
    status, answer, _ = toy_server.request(DRAW, {"prompt": "red", "size": "128x64", "n": 2})
    assert status == 200 and [picture_in(one["b64_json"]).size for one in answer["data"]] == [(128, 64)] * 2


def test_previews_come_by_steps_and_are_whole(toy_server):
    body = {"prompt": "red", "stream": True, "partial_images": 3, "num_inference_steps": 4}
    status, text, _ = toy_server.request(DRAW, body)
    names = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
    assert status == 200 and names == ["image_generation.partial_image"] * 3 + ["image_generation.completed"]
    assert text.count('"size": "96x96"') == 4


def test_settings_are_fields(toy_server):
    """Exactly its own, with their bounds; one that it lacks is refused, and the sentence says what it has."""
    schemas = toy_server.request("/openapi.json")[1]["components"]["schemas"]
    fields = schemas["GenerationBody"]["properties"]
    assert "num_inference_steps" in fields and "guidance_scale" in fields and "temperature" not in fields
    for name in ("temperature", "top_k", "guidance_min_p", "source_guidance_scale"):
        message, param = _refused(toy_server.request(DRAW, {"prompt": "red", name: 1}))
        assert param == name and len(message) < 400
        assert (
            f"This Toy checkpoint has no setting `{name}`; it has `num_inference_steps`, `guidance_scale`" in message
        )
    message, param = _refused(toy_server.request(DRAW, {"prompt": "red", "num_inference_step": 1}))
    assert "did you mean `num_inference_steps`?" in message and param == "num_inference_step"
    assert "did you mean `prompt`?" in _refused(toy_server.request(DRAW, {"prompt": "red", "promt": 1}))[0]
    for value, says in ((0, "greater"), (51, "less"), ("many", "integer"), (True, "integer")):
        message, param = _refused(toy_server.request(DRAW, {"prompt": "red", "num_inference_steps": value}))
        assert param == "num_inference_steps" and says in message


def test_settings_of_text_are_refused_where_images_are_drawn(toy_server):
    """A chat's `temperature` is for words; where only images may come out, it would be ignored."""
    drawing = {"messages": _says("red"), "modalities": ["image"]}
    assert toy_server.request(CHAT, {**drawing, "num_inference_steps": 2})[0] == 200
    for name in ("temperature", "top_k", "top_p"):
        message, param = _refused(toy_server.request(CHAT, {**drawing, name: 1}))
        assert "This Toy checkpoint has no setting" in message and param == name
        assert toy_server.request(CHAT, {"messages": _says("hi"), name: 1})[0] == 200


def test_notices(toy_server):
    """Outside of the sensible range it draws, and says so; in streams and chats too."""
    said = "`guidance_scale` is 9; this checkpoint does well between 1 and 5, so expect less."
    body = {"prompt": "red", "guidance_scale": 9}
    assert toy_server.request(DRAW, body)[1]["notices"] == [said]
    streamed = toy_server.request(DRAW, {**body, "stream": True, "partial_images": 1})[1]
    assert streamed.count(said) == 1 and said in streamed.split("event: ")[-1]
    chat = {"messages": _says("red"), "guidance_scale": 9}
    for modalities in (["image"], ["text", "image"]):
        assert toy_server.request(CHAT, {**chat, "modalities": modalities})[1]["notices"] == [said]
        streamed = toy_server.request(CHAT, {**chat, "modalities": modalities, "stream": True})[1]
        assert streamed.count(said) == 1
    assert "notices" not in toy_server.request(CHAT, {"messages": _says("red")})[1]


def test_it_does_not_edit(toy_server):
    image = data_uri(png(picture(1)))
    says = "This checkpoint was not trained to edit images; leave the image out."
    for prompt in ("red", "make it <b>bluer</b>"):
        answer = toy_server.request("/v1/images/edits", {"prompt": prompt, "image": image})
        assert _refused(answer) == (says, "image")
    content = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": "red"}]
    chat = {"messages": [{"role": "user", "content": content}], "modalities": ["image"]}
    assert _refused(toy_server.request(CHAT, chat)) == (says, "image")


def test_chats(toy_server):
    answer = toy_server.request(CHAT, {"messages": _says("hi"), "max_tokens": 9})[1]
    assert answer["choices"][0]["message"]["content"] == "ok" and answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == 2
    body = {"messages": _says("red please"), "modalities": ["text", "image"], "size": "64x128"}
    message = toy_server.request(CHAT, {**body, "num_inference_steps": 2})[1]["choices"][0]["message"]
    image = picture_in(message["images"][0]["image_url"]["url"])
    assert message["content"] == "ok" and image.size == (64, 128) and is_red(image)
    stopped = toy_server.request(CHAT, {"messages": _says("hi"), "stop": ["k"]})[1]["choices"][0]
    assert stopped["message"]["content"] == "o" and stopped["finish_reason"] == "stop"
    message, param = _refused(toy_server.request(CHAT, {"messages": _says("hi"), "num_inference_steps": 2}))
    assert "`num_inference_steps`" in message and param == "modalities"
    assert "<end>" in _refused(toy_server.request(CHAT, {"messages": _says("a <end> b")}))[0]


def test_models_tell_what_it_can_do(toy_server):
    entry = toy_server.request("/v1/models/tiny")[1]
    assert entry["tasks"] == [UNDERSTANDING, GENERATION] and entry["can_edit"] is False
    assert entry["sizes"] == ["96x96", "128x64", "64x128"]


def test_the_window_is_a_setting_like_others(toy):
    with pytest.raises(ValueError, match="no setting `window`; it has `num_inference_steps`"):
        Service(toy.model, toy.processor, ServerSettings(window=4))


def _with_abilities(toy, monkeypatch, **changes) -> RunningServer:
    abilities = dataclasses.replace(toy.abilities, **changes)
    monkeypatch.setattr("wallaroo_hf.web.engine.abilities_of", lambda model, processor: abilities)
    return RunningServer(toy.model, toy.processor)


def test_checkpoints_that_do_one_thing(toy, monkeypatch):
    server = _with_abilities(toy, monkeypatch, tasks=(UNDERSTANDING,))
    assert "does not draw" in _refused(server.request(DRAW, {"prompt": "red"}))[0]
    for modalities in (["image"], ["text", "image"]):
        assert (
            "does not draw" in _refused(server.request(CHAT, {"messages": _says("hi"), "modalities": modalities}))[0]
        )
    assert server.request(CHAT, {"messages": _says("hi")})[0] == 200
    assert server.request("/v1/models/tiny")[1]["output_modalities"] == ["text"]
    server.stop()
    server = _with_abilities(toy, monkeypatch, tasks=(GENERATION,), negative_prompt=False)
    assert "answers no questions" in _refused(server.request(CHAT, {"messages": _says("hi")}))[0]
    assert server.request(CHAT, {"messages": _says("red"), "modalities": ["image"]})[0] == 200
    message, param = _refused(server.request(DRAW, {"prompt": "red", "negative_prompt": "blue"}))
    assert "takes no negative prompt" in message and param == "negative_prompt"
    server.stop()


def test_fields_of_every_kind_of_setting(toy):
    """Words, words beside numbers, switches; what only Python gives is no field, and is not denied either."""
    settings = (
        Setting("solver", str, "draw", "euler", "Which.", choices=("euler", "heun")),
        Setting("cut", float, "draw", None, "Where.", minimum=0, maximum=1, above_minimum=True, choices=("auto",)),
        Setting("fast", bool, "draw", False, "Whether."),
        Setting("hidden", bool, "draw", False, "Whether.", python_only=True),
        Setting("temperature", float, "draw", 1.0, "How much.", minimum=0, maximum=3),
    )
    abilities = dataclasses.replace(toy.abilities, settings=settings)
    body = with_settings(GenerationBody, abilities, own=())
    given = {"solver": "heun", "cut": "auto", "fast": "true", "temperature": "2"}
    assert body.model_validate({"prompt": "a", **given}).given() == {**given, "fast": True, "temperature": 2.0}
    assert body.model_validate({"prompt": "a", "cut": "0.5"}).given() == {"cut": 0.5}
    for wrong, says in (
        ({"solver": "rk4"}, "'euler' or 'heun'"),
        ({"cut": 0}, "above 0 and at most 1 or 'auto'"),
        ({"cut": True}, "above 0"),
        ({"hidden": True}, "`hidden` cannot be chosen by a request"),
        ({"temperature": 4}, "less than or equal to 3"),
    ):
        with pytest.raises(ValueError, match=says):
            body.model_validate({"prompt": "a", **wrong})
    chat = with_settings(ChatBody, abilities, own=("fast",))
    asked = chat.model_validate({"messages": _says("hi"), "temperature": 9, "solver": "heun"})
    assert asked.temperature == 9 and asked.given() == {"temperature": 9, "solver": "heun"}
    assert "fast" not in chat.model_fields and "solver" not in ChatBody.model_fields


# ------------------------------------------------------------------------------------------------------------ page


@pytest.fixture
def engine(toy, tmp_path):
    pytest.importorskip("gradio", reason="the web page needs gradio: pip install 'wallaroo-hf[app]'")
    from wallaroo_hf.web.app_engine import Engine

    return Engine(toy.model, toy.processor, "toy", tmp_path / "pictures")


def _components(engine):
    from wallaroo_hf.web.app import build_app

    return list(build_app(engine).blocks.values())


def _tabs(engine) -> list[str]:
    return [one.elem_id for one in _components(engine) if type(one).__name__ == "Tab"]


def test_tabs_are_what_it_can_do(engine):
    assert _tabs(engine) == ["tab-draw", "tab-ask", "tab-chat"]
    assert "to-edit" not in {one.elem_id for one in _components(engine)}
    engine.abilities = dataclasses.replace(engine.abilities, tasks=(UNDERSTANDING,))
    assert _tabs(engine) == ["tab-ask", "tab-chat"]
    engine.abilities = dataclasses.replace(engine.abilities, tasks=(GENERATION,))
    assert _tabs(engine) == ["tab-draw"]


def test_sliders_are_its_settings(engine):
    from wallaroo_hf.web.app_parts import slider_values

    sliders = {one.label: one for one in _components(engine) if type(one).__name__ == "Slider"}
    steps, guidance = sliders["Steps"], sliders["Guidance"]
    assert set(sliders) == {"Pictures", "Steps", "Guidance"}
    assert (steps.minimum, steps.maximum, steps.value, steps.step) == (1, 8, 4, 1)
    assert (guidance.minimum, guidance.maximum, guidance.value) == (1, 5, 2)
    values = slider_values(engine, [4.0, 2])
    assert values == {"num_inference_steps": 4, "guidance_scale": 2.0} and isinstance(
        values["num_inference_steps"], int
    )


def test_sliders_without_a_name_of_ours_have_the_settings_own(engine):
    strength = Setting(
        "strength", float, "draw", 0.5, "How far from the source.", minimum=0, maximum=1, above_minimum=True
    )
    engine.abilities = dataclasses.replace(engine.abilities, settings=(strength,))
    (slider,) = [one for one in _components(engine) if getattr(one, "label", None) == "strength"]
    assert (slider.minimum, slider.maximum, slider.value, slider.info) == (0.01, 1, 0.5, strength.help)


def test_draws_by_steps(engine, monkeypatch):
    from wallaroo_hf.web import app_style
    from wallaroo_hf.web.app_engine import Settings

    monkeypatch.setattr("wallaroo_hf.web.app_engine._PREVIEW_PAUSE", 0)
    settings = Settings("red", seed=5, height=64, width=128, sampling={"num_inference_steps": 3, "guidance_scale": 9})
    *steps, last = engine.draw("me", settings)
    assert all(image.size == (128, 64) for step in steps for image in step.images if image is not None)
    assert (
        is_red(last.images[0])
        and not last.stopped
        and "num_inference_steps" in Image.open(last.files[0]).text["settings"]
    )
    shown = app_style.stage(steps[-1], "en", engine.abilities.progress_unit, [5], 0.5)
    assert "step 3 of 3" in shown and "row" not in app_style.stage(None, "en", "step")
    assert engine.notices(settings) == [
        "`guidance_scale` is 9; this checkpoint does well between 1 and 5, so expect less."
    ]
    with pytest.raises(ValueError, match="no setting `temperature`"):
        list(engine.draw("me", Settings("red", seed=5, sampling={"temperature": 1.0})))
    with pytest.raises(ValueError, match="image-editing"):
        list(engine.draw("me", Settings("red", seed=5), picture(1)))


def test_unfinished_pictures_of_chats_are_whole(engine):
    """They are no rows from the top, so that nothing is missing below them."""
    assert list(engine.ask("me", None, "What is it?"))[-1] == "ok"
    steps = list(engine.say("me", engine.conversation(1), "red please", []))
    drawn = [piece for step in steps for piece in step if isinstance(piece, Image.Image)]
    assert drawn and {image.size for image in drawn} == {(96, 96)} and steps[-1][-1] == "ok"
    assert engine.missing_rows(1, 4) == 1
