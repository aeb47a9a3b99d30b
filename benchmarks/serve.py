"""Measures `wallaroo serve` on loopback: throughput and latency of clients at once against one at a time.

    python benchmarks/serve.py --output serve.json

    python benchmarks/serve.py --mixed --against main~1 --output serve-mixed.json

The server is a process of its own; clients are threads that each send their next request when they have their answer. Every
image is compared with the one that the server draws for the same prompt and seed alone. With `--mixed`, requests of several
sizes and settings and chats arrive by chance, see mixed_load.py; `--against` gives the server of another commit the same
load, by turns. See README.md in this folder.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from mixed_load import Answered, arrivals, figures_of, latencies, put_load_on

ROOT = Path(__file__).resolve().parents[1]
COMMAND = (sys.executable, "-c", "from wallaroo_hf.cli import main; main()", "serve", "--port", "0")
PROMPTS = ("a red circle", "a blue star to the left of a green square", "三个黄色的圆形", "two pink hearts")


class Client:
    """Sends requests over one connection."""

    def __init__(self, url: str, size: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=600)
        self._size = size

    def draw(self, number: int) -> tuple[float, str]:
        """Seconds and base64 of image `number`."""
        body = json.dumps({"prompt": PROMPTS[number % len(PROMPTS)], "seed": number, "size": self._size})
        start = time.perf_counter()
        self._connection.request("POST", "/v1/images/generations", body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        answer = json.load(response)
        if response.status != 200:
            raise RuntimeError(f"Request {number} was answered with {response.status}: {answer}")
        return time.perf_counter() - start, answer["data"][0]["b64_json"]


def measure(url: str, size: str, concurrency: int, numbers: range) -> tuple[dict[str, Any], dict[int, str]]:
    """All requests by so many clients: figures, and the images."""
    results: dict[int, tuple[float, str]] = {}
    queue = iter(numbers)  # next() of a range's iterator is atomic

    def work(client: Client) -> None:
        for number in queue:
            results[number] = client.draw(number)

    clients = [Client(url, size) for _ in range(concurrency)]
    start = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as pool:
        for done in [pool.submit(work, client) for client in clients]:
            done.result()
    seconds = time.perf_counter() - start
    figures = {
        "clients": concurrency,
        "requests": len(results),
        "seconds": round(seconds, 3),
        "images_per_second": round(len(results) / seconds, 3),
        "latency_seconds": latencies([latency for latency, _ in results.values()]),
    }
    return figures, {number: image for number, (_, image) in results.items()}


@contextmanager
def running(arguments: argparse.Namespace, source: Path | None = None) -> Iterator[tuple[psutil.Process, str]]:
    """A server: its process, and its address.

    Args:
        arguments: of the script.
        source: the folder that its package is in; None = wherever Python finds it.
    """
    server, url = start_server(arguments, source)
    try:
        yield psutil.Process(server.pid), url
    finally:
        server.terminate()
        server.wait()


@contextmanager
def source_of(commit: str) -> Iterator[Path]:
    """A folder with the package as it was at a commit of this repository."""
    with tempfile.TemporaryDirectory() as folder:
        packed = subprocess.run(
            ("git", "-C", str(ROOT), "archive", "--format=tar", "-o", f"{folder}/source.tar", commit, "src"),
            stderr=subprocess.PIPE,
            text=True,
        )
        if packed.returncode:
            raise SystemExit(f"--against is {commit!r}, which git cannot give: {packed.stderr.strip()}")
        with tarfile.open(f"{folder}/source.tar") as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder) / "src"


def start_server(arguments: argparse.Namespace, source: Path | None = None) -> tuple[subprocess.Popen[str], str]:
    """The server's process, and its address once it serves."""
    options = [
        "--max-batch",
        str(arguments.max_batch),
        "--max-wait",
        str(arguments.max_wait),
        "--dtype",
        arguments.dtype,
    ]
    options += ["--max-queue", str(max(128, *arguments.clients))]
    options += ["--model", arguments.model] if arguments.model else []
    options += ["--device", arguments.device] if arguments.device else []
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    environment |= {} if source is None else {"PYTHONPATH": str(source)}
    server = subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, text=True, env=environment)
    assert server.stdout is not None
    line = server.stdout.readline()
    if " at http" not in line:
        server.wait()
        raise SystemExit("The server did not start.")
    return server, line.split(" at ")[1].split("/v1")[0]


def _cpu_seconds(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:2])


def measure_mixed(arguments: argparse.Namespace) -> dict[str, Any]:
    """The mixed load for each number of clients; with another commit's server, both take turns."""
    with ExitStack() as stack:
        servers = {"this": stack.enter_context(running(arguments))}
        if arguments.against is not None:
            source = stack.enter_context(source_of(arguments.against))
            servers["other"] = stack.enter_context(running(arguments, source))
        for _, url in servers.values():
            put_load_on(url, arrivals(2, 4.0, 1.0, arguments.seed), arguments.seed)  # warm up
        runs = []
        for turn, clients in enumerate(arguments.clients):
            plan = arrivals(clients, arguments.rate, arguments.seconds, arguments.seed)
            planned = sum(len(own) for own in plan)
            run: dict[str, Any] = {"clients": clients, "requests": planned}
            said: dict[str, dict[int, Answered]] = {}
            for name in list(servers)[:: 1 if turn % 2 else -1]:
                process, url = servers[name]
                before = _cpu_seconds(process)
                seconds, said[name] = put_load_on(url, plan, arguments.seed)
                spent = _cpu_seconds(process) - before
                run[name] = figures_of(seconds, spent, said[name], planned, arguments.seed)
            if "other" in said:
                run |= compare(run, said)
            runs.append(run)
            sys.stderr.write(json.dumps(run) + "\n")
    return {"runs": runs}


def compare(run: dict[str, Any], said: dict[str, dict[int, Answered]]) -> dict[str, Any]:
    """This server over the other one, and how many of its answers are not the same."""
    this, other = run["this"], run["other"]
    found: dict[str, Any] = {
        f"{name}_over_other": round(this[name] / other[name], 3)
        for name in ("requests_per_second", "images_per_second", "images_per_cpu_second")
        if other[name]
    }
    for what in ("image", "chat"):
        own, others = this[f"{what}_latency_seconds"], other[f"{what}_latency_seconds"]
        found |= {f"{what}_{p}_over_other": round(own[p] / others[p], 3) for p in ("p50", "p95") if others}
    different = [number for number, answer in said["this"].items() if answer.said != said["other"][number].said]
    return found | {"answers_that_differ": len(different)}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Options of the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint; default: the built-in one")
    parser.add_argument("--size", default="96x96", help="width x height of the images")
    parser.add_argument("--requests", type=int, default=64, help="per number of clients")
    parser.add_argument("--clients", type=int, nargs="+", help="default: 1 4 16, with --mixed 1 4 16 64")
    parser.add_argument("--max-batch", type=int, default=16)
    parser.add_argument("--max-wait", type=float, default=0.01)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device")
    parser.add_argument("--threads", type=int, default=1, help="of the server, on CPU")
    parser.add_argument(
        "--mixed", action="store_true", help="several sizes and settings, and chats, arriving by chance"
    )
    parser.add_argument(
        "--against", metavar="COMMIT", help="with --mixed: the server of this commit gets the same load"
    )
    parser.add_argument("--rate", type=float, default=2.0, help="with --mixed: requests a second of each client")
    parser.add_argument("--seconds", type=float, default=8.0, help="with --mixed: for which requests arrive")
    parser.add_argument("--seed", type=int, default=0, help="with --mixed: of what arrives when")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    arguments = parser.parse_args(argv)
    arguments.clients = arguments.clients or ([1, 4, 16, 64] if arguments.mixed else [1, 4, 16])
    if min(arguments.rate, arguments.seconds) <= 0:
        parser.error("--rate and --seconds must be positive")
    if arguments.against and not arguments.mixed:
        parser.error("--against needs --mixed")
    if min(arguments.clients) < 1 or arguments.requests < 1:
        parser.error("--clients and --requests must be positive")
    return arguments


def measure_equal(arguments: argparse.Namespace) -> dict[str, Any]:
    """Equal requests, as many at once as there are clients."""
    runs: list[dict[str, Any]] = []
    expected: dict[int, str] = {}
    different = 0
    with running(arguments) as (process, url):
        measure(url, arguments.size, 1, range(2))  # warm up
        for clients in sorted({1, *arguments.clients}):
            before = _cpu_seconds(process)
            figures, images = measure(url, arguments.size, clients, range(arguments.requests))
            figures["cpu_seconds_per_image"] = round((_cpu_seconds(process) - before) / arguments.requests, 4)
            expected = expected or images
            different += sum(images[number] != expected[number] for number in expected)
            runs.append(figures)
            sys.stderr.write(json.dumps(figures) + "\n")
    return {
        "runs": runs,
        "images_that_differ_from_one_at_a_time": different,
        "images_per_cpu_second_over_one_at_a_time": {
            str(run["clients"]): round(runs[0]["cpu_seconds_per_image"] / run["cpu_seconds_per_image"], 2)
            for run in runs
        },
        "throughput_over_one_at_a_time": {
            str(run["clients"]): round(run["images_per_second"] / runs[0]["images_per_second"], 2) for run in runs
        },
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Runs the benchmark; returns what it writes."""
    arguments = parse_arguments(argv)
    found = measure_mixed(arguments) if arguments.mixed else measure_equal(arguments)
    result = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": {"python": platform.python_version(), "load": os.getloadavg(), "cores": os.cpu_count()},
        "versions": {name: version(name) for name in ("torch", "transformers", "fastapi", "uvicorn")},
        "settings": {key: value for key, value in vars(arguments).items() if key != "output"},
        **found,
    }
    text = json.dumps(result, indent=2) + "\n"
    if arguments.output is not None:
        arguments.output.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    return result


if __name__ == "__main__":
    main()
