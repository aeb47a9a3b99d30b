"""Measures `wallaroo serve` on loopback: throughput and latency of clients at once against one at a time.

    python benchmarks/serve.py --output serve.json

The server is a process of its own; clients are threads that each send their next request when they have their answer. Every
image is compared with the one that the server draws for the same prompt and seed alone. See README.md in this folder.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

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
    latencies = sorted(latency for latency, _ in results.values())
    percentiles = {f"p{p}": round(_percentile(latencies, p), 4) for p in (50, 90, 95, 99)}
    figures = {
        "clients": concurrency,
        "requests": len(results),
        "seconds": round(seconds, 3),
        "images_per_second": round(len(results) / seconds, 3),
        "latency_seconds": {
            "mean": round(statistics.mean(latencies), 4),
            **percentiles,
            "max": round(latencies[-1], 4),
        },
    }
    return figures, {number: image for number, (_, image) in results.items()}


def _percentile(ordered: list[float], percent: float) -> float:
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]


def start_server(arguments: argparse.Namespace) -> tuple[subprocess.Popen[str], str]:
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
    server = subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, text=True, env=environment)
    assert server.stdout is not None
    line = server.stdout.readline()
    if " at http" not in line:
        server.wait()
        raise SystemExit("The server did not start.")
    return server, line.split(" at ")[1].split("/v1")[0]


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Options of the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint; default: the built-in one")
    parser.add_argument("--size", default="96x96", help="width x height of the images")
    parser.add_argument("--requests", type=int, default=64, help="per number of clients")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--max-batch", type=int, default=16)
    parser.add_argument("--max-wait", type=float, default=0.01)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device")
    parser.add_argument("--threads", type=int, default=1, help="of the server, on CPU")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    arguments = parser.parse_args(argv)
    if min(arguments.clients) < 1 or arguments.requests < 1:
        parser.error("--clients and --requests must be positive")
    return arguments


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Runs the benchmark; returns what it writes."""
    arguments = parse_arguments(argv)
    server, url = start_server(arguments)
    try:
        measure(url, arguments.size, 1, range(2))  # warm up
        process = psutil.Process(server.pid)
        runs, expected, different = [], {}, 0
        for clients in sorted({1, *arguments.clients}):
            before = sum(process.cpu_times()[:2])
            figures, images = measure(url, arguments.size, clients, range(arguments.requests))
            figures["cpu_seconds_per_image"] = round((sum(process.cpu_times()[:2]) - before) / arguments.requests, 4)
            expected = expected or images
            different += sum(images[number] != expected[number] for number in expected)
            runs.append(figures)
            sys.stderr.write(json.dumps(figures) + "\n")
    finally:
        server.terminate()
        server.wait()
    result = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": {"python": platform.python_version(), "load": os.getloadavg(), "cores": os.cpu_count()},
        "versions": {name: version(name) for name in ("torch", "transformers", "fastapi", "uvicorn")},
        "settings": {key: value for key, value in vars(arguments).items() if key != "output"},
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
    text = json.dumps(result, indent=2) + "\n"
    if arguments.output is not None:
        arguments.output.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    return result


if __name__ == "__main__":
    main()
