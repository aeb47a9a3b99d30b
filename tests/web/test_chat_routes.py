"""What a chat costs before it is queued, and which images are part of it."""

from __future__ import annotations

import asyncio

import pytest

from helpers import picture
from running_server import data_uri, picture_in, png
from wallaroo_hf.layout import grid
from wallaroo_hf.web import chat_routes
from wallaroo_hf.web.images import ImageReader
from wallaroo_hf.web.schemas import ChatBody
from wallaroo_hf.web.server_settings import ServerSettings
from wallaroo_hf.web.service import Service


def _image(number: int) -> dict:
    return {"type": "image_url", "image_url": {"url": data_uri(png(picture(number)))}}


def _asks(*images: dict, text: str = "What is it?") -> dict:
    return {"role": "user", "content": [*images, {"type": "text", "text": text}]}


def test_images_of_few_chats_at_a_time_are_open(compact, small_processor, monkeypatch):
    """However many chats come at once; those that wait keep files, not pixels."""
    opened: dict[int, int] = {}

    class Reader(ImageReader):
        def of(self, client):
            images = super().of(client)
            open_url = images.open_url

            async def counting(url, param):
                image = await open_url(url, param)
                opened[id(images)] = opened.get(id(images), 0) + 1
                most.append(sum(opened.values()))
                return image

            images.open_url = counting
            return images

    async def ask():
        settings = ServerSettings()
        service = Service(compact.model, small_processor, settings, Reader(settings))
        original = chat_routes._prepare
        monkeypatch.setattr(chat_routes, "_prepare", lambda *given: opened.popitem() and original(*given))
        body = ChatBody(messages=[_asks(_image(1), _image(2))])
        turns, urls = chat_routes._read_messages(service, body.messages)
        images = [service.images.of(str(number)) for number in range(6)]
        try:
            return await asyncio.gather(*(chat_routes._answers(service, body, turns, urls, own) for own in images))
        finally:
            service.images.close()

    most: list[int] = []
    assert len(asyncio.run(ask())) == 6
    assert len(most) == 12 and max(most) <= 4


@pytest.mark.parametrize("modalities", [["text"], ["text", "image"]])
def test_long_chats_are_refused_before_their_images_are_computed(serve, monkeypatch, modalities):
    computed = []
    with serve(max_prompt_tokens=60) as server:
        images = server.service.processor.image_processor
        original = type(images).__call__
        monkeypatch.setattr(type(images), "__call__", lambda *a, **k: computed.append(1) or original(*a, **k))
        chat = {"messages": [_asks(*[_image(1)] * 8)], "modalities": modalities}
        status, answer, _ = server.request("/v1/chat/completions", chat)
        assert status == 400 and answer["error"]["code"] == "context_length_exceeded"
        assert not computed
        assert server.request("/v1/chat/completions", {"messages": [_asks(_image(1))], "max_tokens": 1})[0] == 200
        assert computed


def test_guidance_reaches_what_auto_mode_draws(server, monkeypatch):
    """And the size is announced: the square one, or that of the image that the chat shows last."""
    seen = []
    converse = type(server.service.engine.model).converse
    monkeypatch.setattr(
        type(server.service.engine.model),
        "converse",
        lambda model, batch, **k: (seen.append({**batch, **k}), converse(model, batch, **k))[1],
    )
    guidance = {"guidance_scale": 2.0, "guidance_min_p": 0.1}
    wide = {"type": "image_url", "image_url": {"url": data_uri(png(picture(1, 128, 48)))}}
    auto = {"modalities": ["text", "image"], "max_tokens": 1}
    for message, fields in ((_asks(text="Draw."), guidance), (_asks(wide), {})):
        assert server.request("/v1/chat/completions", {"messages": [message], **auto, **fields})[0] == 200
    first, second = (k for k in seen if k["mode"] == "auto")
    assert first["drawing"] == guidance and second["drawing"] == {}
    processor = server.service.processor
    said = [processor.tokenizer.decode(k["input_ids"][0]) for k in (first, second)]
    listed = [grid.nearest_indicator(edge, processor.indicator_sizes) for edge in (32, 32)]
    assert "Draw. " + "".join(f"<indicator:{edge}>" for edge in listed) + "<|im_end|>" in said[0]
    assert [k["target_grid_hw"].tolist() for k in (first, second)] == [[[2, 2]], [[2, 4]]]
    text = {"messages": [_asks(text="Hi.")], "guidance_min_p": 0.1}
    status, answer, _ = server.request("/v1/chat/completions", text)
    assert status == 400 and "`guidance_min_p`" in answer["error"]["message"]


def test_what_the_user_shows_replaces_what_was_drawn(server):
    """Only the user's next turn has the drawing, and only if it shows nothing itself."""

    def draw(*messages):
        fields = {"messages": messages, "modalities": ["image"], "seed": 1}
        status, answer, _ = server.request("/v1/chat/completions", fields)
        assert status == 200, answer
        return picture_in(answer["choices"][0]["message"]["images"][0]["image_url"]["url"]).tobytes()

    drawn = [{"role": "user", "content": "a heart"}, {"role": "assistant", "images": [_image(1)]}]
    blue = _asks(_image(2), text="make it blue")
    assert draw(*drawn, blue) == draw(blue)
    assert draw(*drawn, _asks(text="make it blue")) == draw(_asks(_image(1), text="make it blue"))
    again = [*drawn, blue, {"role": "assistant", "content": "Done."}, _asks(text="a cat")]
    assert draw(*again) == draw(_asks(text="a cat"))


def _go_on(server, messages, **more):
    status, body, _ = server.request("/v1/chat/completions", {"messages": messages, "max_tokens": 6, **more})
    assert status == 200, body
    said, usage = body["choices"][0]["message"]["content"], body["usage"]
    return said, usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]


def test_the_next_turn_is_read_from_where_the_last_one_ended(serve):
    """Each client goes on from its own chats; answers are those of a server that keeps nothing."""
    shown = {"type": "image_url", "image_url": {"url": data_uri(png(picture(1)))}}
    chat = [{"role": "user", "content": [shown, {"type": "text", "text": "What is it? " * 8}]}]
    with serve(prefix_cache=0) as server:
        first = _go_on(server, chat)
        more = [*chat, {"role": "assistant", "content": "A cat."}, {"role": "user", "content": "Why?"}]
        expected = [first, _go_on(server, more)]
        assert [cached for *_, cached in expected] == [0, 0]
        assert server.metric("wallaroo_prefix_bytes") == 0
    with serve(api_keys=("one", "two")) as server:
        mine, yours = ({"headers": {"Authorization": f"Bearer {key}"}} for key in ("one", "two"))

        def ask(messages, who):
            status, body, _ = server.request("/v1/chat/completions", {"messages": messages, "max_tokens": 6}, **who)
            assert status == 200, body
            usage = body["usage"]
            cached = usage["prompt_tokens_details"]["cached_tokens"]
            return body["choices"][0]["message"]["content"], usage["prompt_tokens"], cached

        assert ask(chat, mine) == expected[0]
        said, length, cached = ask(more, mine)
        assert (said, length) == expected[1][:2] and cached >= first[1] - 1 and length - cached < 32
        assert ask(more, yours) == expected[1]  # nothing of another client's
        assert server.service.prefixes.tokens_reused == cached
    with serve() as server:
        _go_on(server, chat)
        cached = _go_on(server, more)[-1]
        assert server.metric("wallaroo_prefix_tokens_reused") == cached > 0
        assert server.metric("wallaroo_prefix_bytes") > 0
