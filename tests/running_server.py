"""A server in a thread, and plain HTTP to talk to it."""

from __future__ import annotations

import base64
import http.client
import io
import json
import threading
from typing import Any

import pytest
from PIL import Image

for package in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
    pytest.importorskip(package, reason=f"the server needs {package}; install wallaroo-hf[serve]")

from wallaroo_hf.web.server import create_app, listen, make_server  # noqa: E402
from wallaroo_hf.web.server_settings import ServerSettings  # noqa: E402


class RunningServer:
    """Serves a model on a free port of the loopback until it is stopped."""

    def __init__(self, model: Any, processor: Any, reader: Any = None, **settings: Any) -> None:
        self.app = create_app(model, processor, ServerSettings(**{"name": "tiny", **settings}), reader)
        self.service = self.app.state.service
        self.server = make_server(self.app)
        listener, self.url = listen("127.0.0.1", 0)
        self.address = listener.getsockname()
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()

    def ask_to_stop(self) -> None:
        """What SIGTERM does."""
        self.server.should_exit = True

    def stop(self) -> None:
        """Stops it and waits until it is gone."""
        self.ask_to_stop()
        self._thread.join(120)
        assert not self._thread.is_alive()

    def request(
        self, path: str, body: Any = None, headers: dict[str, str] | None = None, method: str | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON (or text) and headers of an answer; `body` is bytes, or goes as JSON."""
        connection = http.client.HTTPConnection(*self.address, timeout=1500)
        sent = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, sent)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        is_json = response.headers.get_content_type() == "application/json"
        return response.status, json.loads(text) if is_json else text, {k.lower(): v for k, v in response.getheaders()}

    def draw(self, prompt: str, seed: int, size: str = "32x32", **fields: Any) -> Image.Image:
        """Draws one image."""
        status, answer, _ = self.request(
            "/v1/images/generations", {"prompt": prompt, "seed": seed, "size": size, **fields}
        )
        assert status == 200, answer
        return picture_in(answer["data"][0]["b64_json"])

    def metric(self, name: str) -> float:
        """A counter's value, summed over its labels."""
        lines = [
            line for line in self.request("/metrics")[1].splitlines() if line.startswith((f"{name} ", f"{name}{{"))
        ]
        return sum(float(line.rpartition(" ")[2]) for line in lines)


def picture_in(encoded: str) -> Image.Image:
    """Base64, or a data: URI, as a picture."""
    return Image.open(io.BytesIO(base64.b64decode(encoded.rpartition(",")[2])))


def png(image: Image.Image, **options: Any) -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, **{"format": "PNG", **options})
    return buffer.getvalue()


def data_uri(data: bytes, mime: str = "image/png") -> str:
    """A file as a URI."""
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"
