"""Addresses that cannot be listened on."""

from __future__ import annotations

import socket

import pytest

from commands import run
from wallaroo_hf.web.ports import listen, require_free


@pytest.fixture
def busy():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_busy_port_is_said_in_one_sentence(busy):
    for look in (listen, require_free):
        with pytest.raises(ValueError) as caught:
            look("127.0.0.1", busy)
        assert str(caught.value) == (
            f"Cannot listen on 127.0.0.1, port {busy} (Address already in use); choose another --host or --port."
        )


def test_a_host_that_is_not_there():
    with pytest.raises(ValueError, match=r"Cannot listen on .*; choose another --host or --port"):
        require_free("no.such.host.invalid", 8000)


def test_a_free_port_stays_free():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    require_free("127.0.0.1", port)
    listen("127.0.0.1", port)[0].close()


@pytest.mark.parametrize("command", ["app", "serve"])
def test_commands_look_before_they_load(busy, command, tmp_path, monkeypatch):
    if command == "app":
        pytest.importorskip("gradio", reason="the web page needs gradio: pip install 'wallaroo-hf[app]'")
    monkeypatch.setattr("wallaroo_hf.cli.running.load_checkpoint", lambda *_: pytest.fail("a model was loaded"))
    monkeypatch.chdir(tmp_path)
    words = run(command, "--port", busy, *(("--no-open",) if command == "app" else ()), code=1)
    assert "Address already in use); choose another --host or --port." in " ".join(words.split())
