"""Videos in chats and on the web page: the same answer as in Python, and what is refused in one sentence."""

from __future__ import annotations

import base64
import dataclasses

import pytest

from films import film_frames, write_film
from helpers import picture
from running_server import data_uri, png
from wallaroo_hf.web.app_engine import Engine
from wallaroo_hf.web.picture_decoders import Decoders

WORDS = "What happens?"


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> bytes:
    return write_film(tmp_path_factory.mktemp("films") / "bar.mp4", film_frames(30)).read_bytes()


def _part(data: bytes) -> dict:
    return {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{base64.b64encode(data).decode()}"}}


def _post(server, body) -> tuple[int, dict]:
    return server.request("/v1/chat/completions", body)[:2]


def _chat(*parts, **more) -> dict:
    return {
        "messages": [{"role": "user", "content": [*parts, {"type": "text", "text": WORDS}]}],
        "max_tokens": 6,
        **more,
    }


@pytest.fixture(scope="module")
def small_frames(small_processor):
    """A server of a processor that sees small frames."""
    small_processor.pixel_limits["video"] = {"shortest_edge": 784, "longest_edge": 2 * 784}
    yield small_processor
    del small_processor.pixel_limits["video"]


def test_the_answer_is_pythons(small_frames, server, compact, film):
    status, body = _post(server, _chat(_part(film)))
    assert status == 200, body
    chat = [{"role": "user", "content": [{"type": "video", "video": film}, {"type": "text", "text": WORDS}]}]
    inputs = small_frames.apply_chat_template(
        chat, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    assert inputs["video_grid_thw"][0, 0] == 3  # three seconds
    new = compact.model.generate(**inputs, do_sample=False, max_new_tokens=6)[:, inputs["input_ids"].shape[1] :]
    assert body["choices"][0]["message"]["content"] == small_frames.tokenizer.decode(new[0], skip_special_tokens=True)
    assert body["usage"]["prompt_tokens"] == inputs["input_ids"].shape[1]


def test_a_picture_beside_it_and_an_earlier_turn(small_frames, server, film):
    image = {"type": "image_url", "image_url": {"url": data_uri(png(picture(1)))}}
    chat = _chat(image, _part(film))
    chat["messages"] += [{"role": "assistant", "content": "A bar."}, {"role": "user", "content": "Which colour?"}]
    assert _post(server, chat)[0] == 200


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"modalities": ["text", "image"]}, "Nothing is drawn in a chat with videos"),
        ({"parts": 2}, "holds 2 videos, but may hold 1"),
        ({"url": "https://a.b/c.mp4"}, "The video is no data: URI, and this server fetches no videos"),
        ({"url": "data:video/mp4;base64,x!"}, "cannot be decoded"),
        (
            {"url": "data:video/mp4;base64," + base64.b64encode(b"no film").decode()},
            "The video given could not be read",
        ),
        ({"role": "assistant"}, "Only messages of role 'user' may hold videos"),
    ],
)
def test_what_is_refused(small_frames, server, film, change, words):
    part = _part(film)
    if "url" in change:
        part["video_url"]["url"] = change["url"]
    body = _chat(*[part] * change.get("parts", 1))
    body |= {name: value for name, value in change.items() if name == "modalities"}
    if "role" in change:
        body["messages"] = [{"role": "assistant", "content": [part]}, {"role": "user", "content": "And?"}]
    status, answer = _post(server, body)
    assert status == 400 and words in answer["error"]["message"]


def test_limits(small_frames, serve, film):
    for settings, status, words in (
        ({"max_video_frames": 29}, 400, "has 30 frames, but at most 29 are read"),
        ({"max_video_pixels": 3000}, 400, "64x48 pixels, but at most 3,000"),
        ({"max_video_memory": 10_000}, 413, "frames of 64x48 pixels are too much"),
        ({"max_videos": 0}, 400, "holds 1 videos, but may hold 0"),
    ):
        with serve(**settings) as server:
            found, answer = _post(server, _chat(_part(film)))
            assert found == status and words in answer["error"]["message"]


def test_long_films_are_seen_more_sparsely(small_frames):
    """So that what is made of them fits, whatever their length."""
    assert len(small_frames.choose_frames(30, 10.0, 8192)) == 6
    few = small_frames.choose_frames(30_000, 10.0, 100)
    assert 2 <= len(few) <= 180 and few[-1] > 29_000


def test_the_process_that_decodes(film):
    decoders = Decoders(5.0)
    try:
        header, seconds = decoders.look(film, 100, 10_000, 5.0)
        assert (header.num_frames, header.rate, header.height, header.width) == (30, 10.0, 48, 64) and seconds >= 0
        frames, _ = decoders.frames(film, [0, 14, 29], 100, 10_000, 5.0)
        assert frames.shape == (3, 48, 64, 3)
        widths = [int((frame[24, :, 0] > 100).sum()) for frame in frames]
        assert widths == [2, 32, 64]
        with pytest.raises(ValueError, match="could not be read"):
            decoders.look(b"", 100, 10_000, 5.0)
    finally:
        decoders.close()


def test_the_model_says_that_it_sees_videos(server):
    (entry,) = server.request("/v1/models")[1]["data"]
    assert entry["input_modalities"] == ["text", "image", "video"] and "video" in entry["tasks"]


@pytest.fixture
def page(small_frames, compact, tmp_path):
    """What stands behind the web page."""
    return Engine(compact.model, small_frames, "tiny", tmp_path / "pictures")


def test_the_page_answers_as_python_does(page, small_frames, compact, film, tmp_path):
    (tmp_path / "bar.mp4").write_bytes(film)
    chat = [{"role": "user", "content": [{"type": "video", "video": film}, {"type": "text", "text": WORDS}]}]
    inputs = small_frames.apply_chat_template(
        chat, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    seen = small_frames(text=["<|vision_start|><|video_pad|><|vision_end|>"], videos=[film], return_tensors="pt")
    clip = page.open_video(tmp_path / "bar.mp4")
    given = small_frames(text=["<|vision_start|><|video_pad|><|vision_end|>"], videos=[clip], return_tensors="pt")
    assert all((seen[name] == given[name]).all() for name in seen)  # times included
    new = compact.model.generate(**inputs, do_sample=False, max_new_tokens=512)[:, inputs["input_ids"].shape[1] :]
    expected = small_frames.tokenizer.decode(new[0], skip_special_tokens=True).strip()
    assert list(page.ask("me", None, WORDS, tmp_path / "bar.mp4"))[-1] == expected


def test_the_page_chats_about_a_video(page, tmp_path, film):
    (tmp_path / "bar.mp4").write_bytes(film)
    conversation = page.conversation(1)
    conversation.max_new_tokens = 4
    list(page.say("me", conversation, WORDS, [], [tmp_path / "bar.mp4"]))
    assert [part["type"] for part in conversation.messages[0]["content"]] == ["video", "text"]


def test_what_the_page_refuses(page, tmp_path):
    (tmp_path / "bar.mp4").write_bytes(b"no film")
    for name, words in (("bar.mp4", "could not be read"), ("gone.mp4", "is not there any more; upload it again")):
        with pytest.raises(ValueError, match=words):
            list(page.ask("me", None, WORDS, tmp_path / name))
    page.abilities = dataclasses.replace(page.abilities, tasks=("understanding",))
    with pytest.raises(ValueError, match="does not understand videos"):
        list(page.ask("me", None, WORDS, tmp_path / "bar.mp4"))
