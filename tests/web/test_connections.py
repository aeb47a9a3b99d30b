"""Connections that are kept open for nothing: half-sent requests, bodies that drip, answers that nobody takes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wallaroo_hf.web import arriving, connections
from wallaroo_hf.web.connections import QuietLoop, most_connections
from wallaroo_hf.web.guard import Guard

REPOSITORY = Path(__file__).resolve().parents[2]
HALF = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
POST = b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def _connect(server, data: bytes = b"") -> socket.socket:
    connection = socket.create_connection(server.address, timeout=600)
    connection.sendall(data)
    return connection


def _answer(connection: socket.socket) -> tuple[int, dict]:
    """The status and JSON of an answer after which the server closes the connection."""
    data = b""
    while chunk := connection.recv(65536):
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head.lower()
    return int(head.split()[1]), json.loads(body)


def _drip(connection: socket.socket, data: bytes = b"x") -> None:
    """Sends again and again, until the server has closed the connection."""
    with pytest.raises(OSError):
        for _ in range(1200):
            time.sleep(0.05)
            connection.sendall(data)


def _open(server) -> connections.Connections:
    return server.server.config.http.connections_of


def _held(server) -> int:
    """Bytes of bodies that are there, by the middleware that stands before everything; it is made for the first request."""
    layer = server.app.middleware_stack
    while layer is not None and not isinstance(layer, Guard):
        layer = layer.app
    return 0 if layer is None else layer._bodies.held


def test_headers_must_come_in_time(serve):
    with serve(header_timeout=0.3) as server:
        with _connect(server, HALF) as connection:
            status, body = _answer(connection)
        assert status == 408 and body["error"]["code"] == "header_timeout"
        with _connect(server) as connection:  # says nothing at all
            assert connection.recv(100) == b""
        with _connect(server, HALF) as connection:
            _drip(connection)


def test_headers_of_the_next_request_must_come_in_time_too(serve):
    with (
        serve(header_timeout=0.3) as server,
        _connect(server, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n") as kept,
    ):
        assert b"200 OK" in kept.recv(65536)
        _drip(kept, b"X")


def test_a_body_after_its_answer_must_end_in_time(serve):
    """The answer is there, so nothing reads the body any more."""
    begun = POST + b"Content-Length: 1000000\r\n\r\n{"
    with serve(header_timeout=0.3, api_keys=("secret",)) as server, _connect(server, begun) as connection:
        assert b" 401 " in connection.recv(65536)
        _drip(connection)


def test_what_is_no_http(serve):
    with serve() as server, _connect(server, b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n") as connection:
        status, body = _answer(connection)
        assert status == 400 and body["error"]["code"] == "invalid_request"


def test_answers_must_be_taken(serve, eventually):
    """Who asks and asks and reads nothing is cut off."""
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with serve(header_timeout=0.2, body_timeout=0.2) as server, _connect(server) as deaf:
        with pytest.raises(OSError):
            for _ in range(100_000):
                deaf.sendall(ask * 100)
        eventually(lambda: _open(server).num_open == 0)
        assert server.request("/health")[0] == 200


def test_answers_may_be_taken_slowly(serve):
    """In more time than a request may take."""
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with serve(header_timeout=0.2) as server, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**18)
        slow.connect(server.address)
        slow.settimeout(60)
        slow.sendall(ask * 600 + ask.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        time.sleep(1)
        received = bytearray()
        while chunk := slow.recv(2**16):
            received += chunk
    assert received.count(b"200 OK") == 601


def test_there_is_room_for_honest_clients(serve, eventually):
    """However many half-sent requests there are, and though none of them is late."""
    with serve(max_connections=20, header_timeout=600) as server:
        half = []
        for _ in range(100):
            half.append(_connect(server, HALF))
            assert _open(server).num_open <= 20 + connections.ACCEPTED_AT_ONCE
        assert server.draw("a cat", 1).size == (32, 32)
        eventually(lambda: _open(server).num_open <= 20)
        for connection in half:
            connection.close()
        eventually(lambda: _open(server).num_open == 0)
        assert not _open(server).waiting


def test_no_room_at_all(serve, hold, eventually):
    """Where all connections are worked on, a new one is told so, and the others go on."""
    with serve(max_connections=3, max_batch=3) as server:
        gate = hold(server)
        with ThreadPoolExecutor(3) as pool:
            drawing = [pool.submit(server.draw, "a cat", seed) for seed in range(3)]
            eventually(lambda: len(server.service.batcher.running) + server.service.batcher.num_waiting == 3)
            with _connect(server) as connection:
                status, body = _answer(connection)
            assert status == 503 and body["error"]["code"] == "overloaded"
            gate.set()
            assert all(item.result().size == (32, 32) for item in drawing)


def test_bodies_must_keep_to_a_rate(serve, monkeypatch):
    monkeypatch.setattr(arriving, "_GRACE", 0.3)
    with serve() as server, _connect(server, POST + b"Content-Length: 1000000\r\n\r\n{") as connection:
        assert b" 408 " in connection.recv(65536)


def test_slow_bodies_make_room(serve, monkeypatch):
    """As many as may be read at once, and an honest request still comes through."""
    monkeypatch.setattr(arriving, "_PATIENCE", 0.0)
    with serve(max_queue=1, max_batch=1) as server:
        slow = [_connect(server, POST + b"Content-Length: 1000\r\n\r\n{") for _ in range(60)]
        assert server.draw("a cat", 1).size == (32, 32)
        for connection in slow:
            connection.close()


def test_large_bodies_that_stall_make_room(serve, monkeypatch, eventually):
    """Of all memory for bodies too little is left for another one, so the one that came first goes."""
    monkeypatch.setattr(arriving, "_PATIENCE", 0.0)
    with serve(max_body_bytes=10_000, max_queue_bytes=15_000) as server:
        slow = [_connect(server, POST + b"Content-Length: 9000\r\n\r\n" + b" " * 7000) for _ in range(2)]
        eventually(lambda: _held(server) >= 14_000)
        body = {"prompt": "a cat", "size": "32x32", "user": "x" * 5000}
        assert server.request("/v1/images/generations", body)[0] == 200
        for connection in slow:
            connection.close()


def _cpu_seconds(pid: int) -> float:
    """What a process has computed; 0 where the system does not say."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return 0.0
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_few_files(tmp_path):
    """A server that may open few files: it serves through a flood, does not spin, and its log stays short."""
    pytest.importorskip("resource", reason="limits of open files are a matter of Unix")
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128));"
        "from wallaroo_hf.cli import main; main()"
    )
    log = tmp_path / "log"
    with open(log, "wb") as sink:
        command = [sys.executable, "-c", program, "serve", "--port", "0", "--device", "cpu"]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1"}
        serving = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sink, text=True, env=environment)
    flood = []
    try:
        line = serving.stdout.readline()
        assert line.startswith("Serving "), line + log.read_text()
        port = int(line.split(":")[2].split("/")[0])
        flood = [socket.create_connection(("127.0.0.1", port), timeout=600) for _ in range(400)]
        for connection in flood:
            with contextlib.suppress(OSError):  # some have made room for others
                connection.sendall(HALF)
        began = _cpu_seconds(serving.pid)
        time.sleep(1)
        assert _cpu_seconds(serving.pid) - began < 0.5
        with socket.create_connection(("127.0.0.1", port), timeout=600) as honest:
            honest.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert b"200 OK" in honest.recv(65536)
    finally:
        for connection in flood:
            connection.close()
        serving.kill()
        serving.wait()
    assert log.stat().st_size < 10_000, log.read_text()[:2000]


def test_what_cannot_be_taken_is_said_once(caplog):
    handler, loop = QuietLoop(), asyncio.new_event_loop()
    for _ in range(1000):
        error = OSError(errno.EMFILE, "Too many open files")
        handler(loop, {"message": "socket.accept() out of system resource", "exception": error})
    assert len(caplog.records) == 1 and "raise the limit of open files" in caplog.text
    handler(loop, {"message": "something else", "exception": OSError(errno.EIO, "Input/output error")})
    assert len(caplog.records) == 2
    loop.close()


def test_how_many_there_may_be():
    resource = pytest.importorskip("resource", reason="limits of open files are a matter of Unix")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        for limit in (200, 1000):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
            assert 1 <= most_connections(10**6) < limit - 40
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert most_connections(5) == 5
