"""Show-o2 behind the server and the page, which know no family; see also tests/web/test_toy_family.py."""

from __future__ import annotations

import pytest

from helpers import picture
from running_server import RunningServer, data_uri, picture_in, png
from small_showo2 import save_showo2
from wallaroo_hf.families.registry import load

DRAW, CHAT = "/v1/images/generations", "/v1/chat/completions"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return load(str(save_showo2(tmp_path_factory.mktemp("showo2"))), "cpu", "float32")


@pytest.fixture(scope="module")
def server(small):
    server = RunningServer(small.model, small.processor)
    yield server
    server.stop()


def test_draws_with_its_settings(server):
    body = {"prompt": "a red square", "seed": 1, "num_inference_steps": 10, "guidance_scale": 2}
    status, answer, _ = server.request(DRAW, body)
    image = picture_in(answer["data"][0]["b64_json"])
    assert status == 200 and answer["size"] == "32x32" and image.size == (32, 32)
    other = picture_in(server.request(DRAW, {**body, "seed": 2})[1]["data"][0]["b64_json"])
    again = picture_in(server.request(DRAW, body)[1]["data"][0]["b64_json"])
    assert again.tobytes() == image.tobytes() != other.tobytes()
    _, text, _ = server.request(DRAW, {**body, "stream": True, "partial_images": 2})
    assert text.count("event: image_generation.partial_image") == 2


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("temperature", 0.5, "This Show-o2 checkpoint has no setting `temperature`; it has `guidance_scale`"),
        ("num_inference_steps", 0, "greater than or equal to 1"),
        ("guidance_scale", 0, "greater than 0"),
    ],
)
def test_other_settings_are_refused(server, field, value, words):
    status, answer, _ = server.request(DRAW, {"prompt": "red", field: value})
    assert status == 400 and words in answer["error"]["message"] and answer["error"]["param"] == field


def test_answers_and_does_not_edit(server):
    image = data_uri(png(picture(1)))
    status, answer, _ = server.request("/v1/images/edits", {"prompt": "red", "image": image})
    assert status == 400 and "was not trained to edit" in answer["error"]["message"]
    content = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": "what colour is it?"}]
    status, answer, _ = server.request(CHAT, {"messages": [{"role": "user", "content": content}], "max_tokens": 4})
    assert status == 200 and 0 < answer["usage"]["completion_tokens"] <= 4
    entry = server.request("/v1/models/tiny")[1]
    assert entry["tasks"] == ["understanding", "text-to-image", "video"] and entry["can_edit"] is False


def test_the_page_has_its_sliders_and_tabs(small, tmp_path):
    pytest.importorskip("gradio", reason="the web page needs gradio: pip install 'wallaroo-hf[app]'")
    from wallaroo_hf.web.app import build_app
    from wallaroo_hf.web.app_engine import Engine, Settings

    engine = Engine(small.model, small.processor, "showo2", tmp_path)
    components = list(build_app(engine).blocks.values())
    assert [one.elem_id for one in components if type(one).__name__ == "Tab"] == ["tab-draw", "tab-ask", "tab-chat"]
    assert {"Steps", "Guidance"} <= {one.label for one in components if type(one).__name__ == "Slider"}
    *_, last = engine.draw("me", Settings("a red square", seed=5, sampling={"num_inference_steps": 2}))
    assert last.images[0].size == (32, 32) and not last.stopped
