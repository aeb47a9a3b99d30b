"""A server on loopback, in a thread of this process."""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from running_server import RunningServer


@pytest.fixture(scope="session")
def small_processor(compact):
    """The tiny model's processor, with small listed sizes."""
    processor = copy.deepcopy(compact.processor)
    processor.buckets = [(32, 32), (32, 64), (64, 32)]
    return processor


@pytest.fixture(scope="module")
def serve(compact, small_processor):
    """Starts a server with settings of one's own: `with serve(max_queue=2) as server`."""

    from running_server import RunningServer

    @contextlib.contextmanager
    def start(**settings: Any) -> Iterator[RunningServer]:
        server = RunningServer(compact.model, small_processor, **settings)
        try:
            yield server
        finally:
            server.stop()

    return start


@pytest.fixture(scope="module")
def server(serve):
    """One with default settings, for all tests of a file."""
    with serve() as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    """The official client, talking to it."""
    openai = pytest.importorskip("openai", reason="the client needs openai: pip install openai")
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as connected:
        yield connected


@pytest.fixture
def hold(monkeypatch):
    """Makes a server's worker wait before it begins anything: `gate = hold(server)`, then `gate.set()`."""

    def install(server: RunningServer) -> threading.Event:
        gate = threading.Event()
        begin = server.service.engine.begin

        def held(jobs):
            assert gate.wait(600)
            begin(jobs)

        monkeypatch.setattr(server.service.engine, "begin", held)
        return gate

    return install


@pytest.fixture
def eventually():
    """Waits until something is true."""

    def wait(condition, seconds=600.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not become true"
            time.sleep(0.01)

    return wait
