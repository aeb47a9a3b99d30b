"""Requests to the server, in this process: every answer is what the API promises, and honest ones go on."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import random
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from golden import GoldenSet
from wallaroo_hf.web.server import create_app
from wallaroo_hf.web.server_settings import ServerSettings

from .kind import Kind, Refused
from .server_requests import HOST, KEY, ORIGIN, Made, Requests

HONEST = {"prompt": "a cat", "seed": 1, "size": "32x32"}
HOW_OFTEN = 20  # rounds from one honest request to the next
GUARDED = {"api_keys": (KEY,), "allowed_hosts": (HOST,), "cors_origins": (ORIGIN,), "max_body_bytes": 50_000}


class Server(Kind):
    """Two servers of the tiny model: an open one, and one with keys, hosts, origins and tight limits."""

    def __init__(self, golden: GoldenSet, folder: Path) -> None:
        super().__init__(golden, folder)
        self.processor.buckets = [(32, 32), (32, 64), (64, 32)]
        self.made_up, self.rounds = Requests(), 0
        self.runner = asyncio.Runner()
        self.running = contextlib.AsyncExitStack()
        self.open, self.guarded = (
            self.runner.run(self._start(golden.model, settings))
            for settings in ({}, {**GUARDED, "max_prompt_tokens": 99})
        )
        self.drawn = self._draw()

    async def _start(self, model: Any, settings: dict[str, Any]) -> httpx.AsyncClient:
        app = create_app(model, self.processor, ServerSettings(name="tiny", **settings))
        await self.running.enter_async_context(app.router.lifespan_context(app))
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://{HOST}", timeout=None)
        return await self.running.enter_async_context(client)

    def round(self, rng: random.Random) -> None:
        """Sends a request and looks at the answer."""
        self.rounds += 1
        made, is_open = self.made_up.request(rng), rng.random() < 0.85
        if not is_open and rng.random() < 0.8:
            made.headers.append((b"authorization", f"Bearer {KEY}".encode()))
        answer = self._send(made, is_open, rng)
        if self.rounds % HOW_OFTEN == 0:
            assert self._draw() == self.drawn
        assert answer.status_code < 500, (answer.status_code, answer.text)
        is_refused = _check(answer, made)
        if is_refused:
            raise Refused(answer.text[:1000])

    def _send(self, made: Made, is_open: bool, rng: random.Random) -> httpx.Response:
        content: Any = made.body
        if rng.random() < 0.1:  # without a length, and in pieces
            content = _pieces(made.body, rng.randint(1, 1 + len(made.body)))
        client = self.open if is_open else self.guarded
        return self.runner.run(client.request(made.method, made.path, headers=made.headers, content=content))

    def _draw(self) -> str:
        answer = self.runner.run(self.open.post("/v1/images/generations", json=HONEST))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["data"][0]["b64_json"])

    def close(self) -> None:
        """Draws once more, as before; and the server counted no failure of its own."""
        try:
            assert self._draw() == self.drawn
            metrics = self.runner.run(self.open.get("/metrics")).text
            assert 'status="5' not in metrics, metrics
        finally:
            self.runner.run(self.running.aclose())
            self.runner.close()


async def _pieces(body: bytes, size: int) -> Any:
    for start in range(0, len(body), size):
        yield body[start : start + size]


def _check(answer: httpx.Response, made: Made) -> bool:
    """Looks at an answer's form; returns whether it is a refusal."""
    kind = answer.headers.get("content-type", "").partition(";")[0]
    if made.method == "HEAD" or (made.method == "OPTIONS" and kind == "text/plain"):  # no body; what CORS asks
        return answer.status_code >= 400
    if kind == "text/event-stream":
        return _check_stream(answer)
    if kind != "application/json":
        assert made.path == "/metrics" and answer.status_code == 200, (answer.status_code, answer.headers)
        return False
    content = _strict(answer.content)
    if answer.status_code >= 400:
        _check_error(content)
        return True
    assert answer.status_code == 200
    if made.path.startswith("/v1/images/"):
        for drawn in content["data"]:
            _check_picture(drawn["b64_json"], content["size"], content["output_format"])
    elif made.path == "/v1/chat/completions":
        for choice in content["choices"]:
            assert choice["finish_reason"] in ("stop", "length")
            _check_message(choice["message"])
        assert content["usage"]["total_tokens"] >= content["usage"]["completion_tokens"] > 0
    return False


def _check_error(content: Any) -> None:
    assert set(content) == {"error"} and set(content["error"]) == {"message", "type", "param", "code"}, content
    said = content["error"]["message"]
    assert said.endswith((".", "?")) and "\n" not in said and 10 < len(said) < 700, said
    assert "Traceback" not in said and "site-packages" not in said, said


def _check_stream(answer: httpx.Response) -> bool:
    """Events, each with a line of JSON; the last one says that it is over. Returns whether it is a refusal."""
    assert answer.status_code == 200
    text = answer.content.decode()
    assert text.endswith("\n\n")
    events = [event.rpartition("data: ")[2] for event in text[:-2].split("\n\n")]
    is_chat = events[-1] == "[DONE]"
    contents = [_strict(event.encode()) for event in (events[:-1] if is_chat else events)]
    if "error" in contents[-1]:
        _check_error(contents[-1])
        return True
    for content in contents:
        if "b64_json" in content:
            _check_picture(content["b64_json"], content["size"], content["output_format"])
        for choice in content.get("choices", ()):
            _check_message(choice["delta"])
    assert is_chat or contents[-1]["type"].endswith(".completed")
    return False


def _check_message(message: dict[str, Any]) -> None:
    assert isinstance(message.get("content"), str | None)
    for part in message.get("images", ()):
        _check_picture(part["image_url"]["url"].partition(",")[2], None, "png")


def _check_picture(encoded: str, size: str | None, kind: str) -> None:
    with Image.open(io.BytesIO(base64.b64decode(encoded, validate=True))) as image:
        image.load()
        assert image.format == kind.upper() and size in (None, f"{image.width}x{image.height}")


def _strict(text: bytes) -> Any:
    """JSON as everyone reads it: whole text, no NaN."""

    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text.decode(), parse_constant=refuse)
