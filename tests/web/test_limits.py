"""What happens when there is too much of something, when clients leave, and when the server is told to stop."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers import picture
from running_server import data_uri, picture_in, png
from wallaroo_hf.common.row_following import RowsStreamer
from wallaroo_hf.generation import ImageStreamer
from wallaroo_hf.generation.streamers import BaseStreamer
from wallaroo_hf.web.requests import Text

DRAWING = {"prompt": "a cat", "size": "32x32", "seed": 1}


@pytest.fixture
def count_tokens(monkeypatch):
    """How many times a streamer of a class was given ids."""

    def install(streamer: type[BaseStreamer]) -> list[int]:
        seen = []
        put = streamer.put

        def counting(self, value):
            seen.append(1)
            put(self, value)

        monkeypatch.setattr(streamer, "put", counting)
        return seen

    return install


def _send(server, path, body) -> socket.socket:
    """Sends a request and does not wait for the answer."""
    connection = socket.create_connection(server.address)
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return connection


def refused(server) -> float:
    """Requests that were answered with 429."""
    labels = {"route": "/v1/images/generations", "status": "429"}
    return server.service.metrics.registry.get_sample_value("wallaroo_requests_total", labels) or 0


def test_a_full_queue(serve, hold, eventually):
    """429 with Retry-After, and the official client comes back by itself."""
    openai = pytest.importorskip("openai", reason="the client needs openai: pip install openai")
    with serve(max_queue=2, max_batch=1) as server:
        gate = hold(server)
        with ThreadPoolExecutor(4) as pool:
            running = pool.submit(server.draw, "a cat", 1)
            eventually(lambda: server.service.batcher.running)
            waiting = [pool.submit(server.draw, "a cat", seed) for seed in (2, 3)]
            eventually(lambda: server.service.batcher.num_waiting == 2)
            status, answer, headers = server.request("/v1/images/generations", DRAWING)
            assert status == 429 and int(headers["retry-after"]) >= 1
            assert answer["error"]["code"] == "queue_full" and answer["error"]["type"] == "rate_limit_error"
            client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=3)
            patient = pool.submit(client.images.generate, prompt="a cat", size="32x32", extra_body={"seed": 4})
            eventually(
                lambda: (
                    server.metric("wallaroo_requests_total") >= 2 and 'status="429"' in server.request("/metrics")[1]
                )
            )
            gate.set()
            images = {running.result().tobytes(), *(item.result().tobytes() for item in waiting)}
            images.add(picture_in(patient.result().data[0].b64_json).tobytes())
            client.close()
        assert len(images) == 4


def test_more_than_the_queue_can_ever_hold(serve):
    with serve(max_queue=2, max_n=8) as server:
        status, answer, _ = server.request("/v1/images/generations", {**DRAWING, "n": 3})
        assert status == 400 and answer["error"]["param"] == "n"


def test_no_image_is_larger_than_it_may_be(serve):
    """However its size comes about: asked for, by its shape, by the image to edit, or by nothing at all."""
    picture_part = {"type": "image_url", "image_url": {"url": data_uri(png(picture(1, 60, 30)))}}
    chat = {"modalities": ["text", "image"], "messages": [{"role": "user", "content": "Draw."}], "max_tokens": 1}
    edited = {"role": "user", "content": [picture_part, {"type": "text", "text": "bluer"}]}
    large = [
        ("images/generations", {"prompt": "a cat", "size": "64x32"}),
        ("images/generations", {"prompt": "a cat", "aspect_ratio": "2:1"}),
        ("images/edits", {"prompt": "bluer", "image": picture_part["image_url"]["url"]}),
        ("chat/completions", {**chat, "aspect_ratio": "1:2"}),
        ("chat/completions", {"modalities": ["image"], "messages": [edited]}),
        ("chat/completions", {**chat, "messages": [edited]}),
    ]
    with serve(max_output_pixels=32 * 32) as server:
        for path, body in large:
            status, answer, _ = server.request(f"/v1/{path}", body)
            assert status == 400 and "may have 1024" in answer["error"]["message"], path
        assert server.draw("a cat", 1, "auto").size == (32, 32)
        assert server.request("/v1/chat/completions", chat)[0] == 200
    default = {"prompt": "a cat"}
    with serve(max_output_pixels=16 * 32) as server:
        for path, body in (("images/generations", default), ("chat/completions", chat)):
            status, answer, _ = server.request(f"/v1/{path}", body)
            assert status == 400 and "32x32 pixels, but may have 512" in answer["error"]["message"], path


def test_time_is_limited(serve, hold):
    with serve(timeout=0.2) as server:
        gate = hold(server)
        status, answer, headers = server.request("/v1/images/generations", DRAWING)
        assert status == 504 and answer["error"]["code"] == "timeout" and headers["x-should-retry"] == "false"
        gate.set()
        assert server.metric("wallaroo_cancelled_total") == 1


def test_a_drawing_stops_when_its_client_leaves(server, count_tokens, eventually):
    tokens = count_tokens(ImageStreamer)
    connection = _send(server, "/v1/images/generations", {"prompt": "a cat", "size": "512x512"})
    eventually(lambda: len(tokens) > 5)
    connection.close()
    eventually(lambda: not server.service.batcher.running)
    assert len(tokens) < 32 * 33
    assert server.metric("wallaroo_cancelled_total") == 1
    assert server.draw("a cat", 1).size == (32, 32)


def test_a_streamed_drawing_stops_when_its_client_leaves(server, count_tokens, eventually):
    tokens = count_tokens(ImageStreamer)
    body = {"prompt": "a cat", "size": "512x512", "stream": True, "partial_images": 3}
    connection = _send(server, "/v1/images/generations", body)
    assert b"200 OK" in connection.recv(100)  # a quarter is there
    connection.close()
    eventually(lambda: not server.service.batcher.running)
    assert 32 * 33 / 4 <= len(tokens) < 32 * 33


def test_an_answer_stops_when_its_client_leaves(server, count_tokens, eventually):
    tokens = count_tokens(RowsStreamer)
    chat = {"messages": [{"role": "user", "content": "Tell me more."}], "max_tokens": 2000, "stream": True}
    connection = _send(server, "/v1/chat/completions", {**chat, "temperature": 2})
    assert b"200 OK" in connection.recv(100)
    connection.close()
    eventually(lambda: not server.service.batcher.running)
    assert len(tokens) < 2000


@pytest.mark.parametrize("keys", [(), ("secret", "other")])
def test_one_client_is_one_however_it_writes_its_headers(serve, hold, eventually, keys):
    """Whoever could be many would have as many turns."""
    spellings = ["Bearer secret", "bearer secret", "BEARER  secret ", "Bearer   secret"]
    with serve(api_keys=keys, max_batch=1) as server:
        gate = hold(server)
        with ThreadPoolExecutor(8) as pool:
            ask = [
                {"Authorization": spelling, "X-Client": str(number), "User-Agent": str(number)}
                for number, spelling in enumerate(spellings)
            ]
            ask.append({"Authorization": "Bearer other"})
            asked = [pool.submit(server.request, "/v1/images/generations", DRAWING, headers) for headers in ask]
            batcher = server.service.batcher
            eventually(lambda: batcher.num_waiting + len(batcher.running) == 5)
            clients = {job.client for job in [*batcher.running, *batcher.waiting]}
            gate.set()
            assert all(item.result()[0] == 200 for item in asked)
    assert len(clients) == max(1, len(keys)) and not any("secret" in client for client in clients)


def test_others_of_the_batch_stay(serve, hold, eventually):
    with serve(max_wait=1.0, max_batch=2) as server:
        gate = hold(server)
        leaving = _send(server, "/v1/images/generations", {**DRAWING, "seed": 7})
        with ThreadPoolExecutor(1) as pool:
            staying = pool.submit(server.draw, "a cat", 1)
            eventually(lambda: len(server.service.batcher.running) == 2)
            leaving.close()
            eventually(lambda: server.metric("wallaroo_cancelled_total") == 1)
            gate.set()
            assert staying.result().size == (32, 32)


def test_who_leaves_the_queue_is_never_drawn(serve, hold, eventually):
    with serve(max_batch=1) as server:
        gate = hold(server)
        with ThreadPoolExecutor(1) as pool:
            staying = pool.submit(server.draw, "a cat", 1)
            eventually(lambda: server.service.batcher.running)
            leaving = _send(server, "/v1/images/generations", {**DRAWING, "seed": 7})
            eventually(lambda: server.service.batcher.num_waiting == 1)
            leaving.close()
            eventually(lambda: server.service.batcher.num_waiting == 0)
            gate.set()
            staying.result()
        assert server.metric("wallaroo_batch_size_sum") == 1


def test_told_to_stop(serve, hold, eventually):
    """What runs is finished, what waits is refused, and nobody new is let in."""
    with serve(max_batch=1) as server:
        gate = hold(server)
        with ThreadPoolExecutor(2) as pool:
            running = pool.submit(server.draw, "a cat", 1)
            eventually(lambda: server.service.batcher.running)
            waiting = pool.submit(server.request, "/v1/images/generations", {**DRAWING, "seed": 2})
            eventually(lambda: server.service.batcher.num_waiting == 1)
            server.ask_to_stop()
            status, answer, _ = waiting.result(60)
            assert status == 503 and answer["error"]["code"] == "shutting_down"
            with pytest.raises(OSError):
                server.request("/health")
            assert not running.done()
            gate.set()
            assert running.result(60).size == (32, 32)
        server.stop()


def test_stopping_does_not_wait_forever(serve):
    """An answer that takes longer than it may is given up."""
    with serve(shutdown_timeout=1) as server:
        connection = _send(server, "/v1/images/generations", {"prompt": "a cat", "size": "1024x1024"})
        while not server.service.batcher.running:
            time.sleep(0.01)
        start = time.monotonic()
        server.stop()
        assert time.monotonic() - start < 60
        connection.close()


def test_large_requests(serve):
    with serve(max_body_bytes=10_000) as server:
        body = {**DRAWING, "prompt": "x" * 20_000}
        status, answer, _ = server.request("/v1/images/generations", body)
        assert status == 413 and answer["error"]["code"] == "body_too_large"
        # without saying so beforehand
        connection = socket.create_connection(server.address)
        head = "POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(3):
            connection.sendall(b"1388\r\n" + b" " * 5000 + b"\r\n")
        assert b" 413 " in connection.recv(100)
        connection.close()
        assert server.draw("a cat", 1)


def test_many_large_requests(serve):
    """The bodies of all requests together are bounded too, and their room comes back."""
    with serve(max_body_bytes=10_000, max_queue_bytes=15_000) as server:
        head = "POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        halves = [socket.create_connection(server.address) for _ in range(2)]
        for connection in halves:
            connection.sendall(f"{head}Content-Length: 9000\r\n\r\n".encode() + b" " * 8000)
        ready, _, _ = select.select(halves, [], [], 60)
        assert b" 429 " in ready[0].recv(100)
        for connection in halves:
            connection.close()
        assert server.draw("a cat", 1)


def test_errors_in_the_middle_of_a_stream(serve, monkeypatch):
    """They come as an event, which the official client raises."""
    openai = pytest.importorskip("openai", reason="the client needs openai: pip install openai")

    def fail(jobs):
        jobs[0].emit(Text("Once upon"))
        raise RuntimeError("out of stories")

    with serve() as server:
        monkeypatch.setattr(server.service.engine, "begin", fail)
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            chat = [{"role": "user", "content": "Tell me a story."}]
            chunks = client.chat.completions.create(model="tiny", messages=chat, stream=True)
            assert next(chunks).choices[0].delta.content == "Once upon"
            with pytest.raises(openai.APIError, match="its log says why"):
                next(chunks)


def test_slow_requests(serve):
    with serve(body_timeout=0.2) as server:
        connection = socket.create_connection(server.address)
        head = "POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        assert b" 408 " in connection.recv(100)
        connection.close()


def test_web_pages_elsewhere(serve):
    """A page that somebody visits must not use the server on their machine, under whatever name it finds it."""
    with serve(allowed_hosts=("127.0.0.1", "localhost"), cors_origins=("https://chat.example.org",)) as server:
        form = {"Content-Type": "text/plain"}
        for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}, {"Origin": "null"}):
            status, answer, _ = server.request("/v1/images/generations", b"{}", {**form, **headers})
            assert (status == 403 and "evil" in answer["error"]["message"]) or "null" in answer["error"]["message"]
        own = {"Origin": server.url}
        assert server.request("/v1/images/generations", DRAWING, own)[0] == 200
        allowed = {"Origin": "https://chat.example.org", "Access-Control-Request-Method": "POST"}
        status, _, headers = server.request("/v1/images/generations", headers=allowed, method="OPTIONS")
        assert status == 200 and headers["access-control-allow-origin"] == "https://chat.example.org"


def test_health_and_metrics(serve, hold, eventually):
    with serve() as server:
        gate = hold(server)
        drawing = threading.Thread(target=server.draw, args=("a cat", 1))
        drawing.start()
        eventually(lambda: server.request("/health")[1]["running"] == 1)
        gate.set()
        drawing.join()
        assert server.request("/health")[1] == {"status": "ok", "model": "tiny", "waiting": 0, "running": 0}
        assert server.request("/no/such/thing")[0] == 404
        text = server.request("/metrics")[1]
        assert 'wallaroo_requests_total{route="/v1/images/generations",status="200"} 1.0' in text
        assert 'wallaroo_requests_total{route="other",status="404"} 1.0' in text
        assert "wallaroo_images_total 1.0" in text and 'wallaroo_batch_size_count{task="generation"} 1.0' in text
        assert "no/such" not in text
