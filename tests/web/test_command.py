"""`wallaroo serve` as a process, and the example against it."""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from running_server import picture_in
from wallaroo_hf.cli import app

REPOSITORY = Path(__file__).resolve().parents[2]
WALLAROO = (sys.executable, "-c", "from wallaroo_hf.cli import main; main()")


@pytest.fixture
def process():
    """Starts `wallaroo serve` on a free port; gives the process and its address once it serves."""
    started = []

    def start(*options):
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1"}
        command = [*WALLAROO, "serve", "--port", "0", "--device", "cpu", *options]
        serving = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        started.append(serving)
        line = serving.stdout.readline()
        assert line.startswith("Serving "), line + serving.stdout.read()
        return serving, line.split(" at ")[1].split("/v1")[0]

    yield start
    for serving in started:
        serving.kill()
        serving.wait()


def _post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=1500) as response:
        return json.load(response)


def test_it_serves_and_finishes_what_it_began(process):
    """SIGTERM while a picture is drawn: the picture still comes, then the process ends."""
    serving, url = process("--dtype", "float32")
    assert url.startswith("http://127.0.0.1:")
    name = json.load(urllib.request.urlopen(f"{url}/v1/models"))["data"][0]["id"]
    assert name == "wallaroo-built-in"
    answers = []
    body = {"model": name, "prompt": "a red circle", "size": "96x96", "n": 8, "seed": 1}
    drawing = threading.Thread(target=lambda: answers.append(_post(f"{url}/v1/images/generations", body)))
    drawing.start()
    while json.load(urllib.request.urlopen(f"{url}/health"))["running"] == 0:
        assert drawing.is_alive()
    serving.send_signal(signal.SIGTERM)
    drawing.join(800)
    assert [picture_in(item["b64_json"]).size for item in answers[0]["data"]] == [(96, 96)] * 8
    assert serving.wait(600) in (0, -signal.SIGTERM)
    with pytest.raises(OSError):
        urllib.request.urlopen(f"{url}/health")


def test_what_is_wrong_is_said_in_a_sentence(tmp_path, monkeypatch):
    def run(*options):
        result = CliRunner().invoke(app, ["serve", *map(str, options)])
        assert result.exit_code == 1 and result.output.startswith("Error: "), result.output
        return result.output

    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "choose another --host or --port" in run("--port", taken.getsockname()[1])
    assert "choose another --host or --port" in run("--host", "no.such.host.invalid")
    assert "No checkpoint" in run("--port", 0, "--model", tmp_path)
    assert "API key is empty" in run("--port", 0, "--api-key", "")
    monkeypatch.setenv("WALLAROO_API_KEY", "")
    assert "would let everyone in" in run("--port", 0)


def test_without_the_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delitem(sys.modules, "wallaroo_hf.web.server", raising=False)
    monkeypatch.delitem(sys.modules, "wallaroo_hf.web.chat_routes", raising=False)
    result = CliRunner().invoke(app, ["serve"])
    assert result.exit_code == 1 and "pip install 'wallaroo-hf[serve]'" in result.output


def test_example(server, tmp_path, monkeypatch, capsys):
    pytest.importorskip("openai", reason="the example needs openai: pip install openai")
    script = REPOSITORY / "examples" / "client.py"
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    monkeypatch.setattr(sys, "argv", [str(script), "a cat", "make it blue", str(tmp_path / "cat.png")])
    runpy.run_path(str(script), run_name="__main__")
    assert "cat.png (seed 1), edited (seed" in capsys.readouterr().out
    assert Image.open(tmp_path / "cat.png").size == Image.open(tmp_path / "cat-edited.png").size == (32, 32)
