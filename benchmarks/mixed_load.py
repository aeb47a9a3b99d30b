"""A mixed load for `serve.py`: drawings of several sizes and settings, and chats, that arrive by chance.

What is asked for and when follows from a number and a seed, so that two servers can be given the same load.
"""

from __future__ import annotations

import http.client
import json
import random
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

SIZES = ("96x96", "128x64", "64x128", "64x64", "128x128")
GUIDANCE = (None, 1.0, 2.0, 4.0)  # None: the checkpoint's
PROMPTS = (
    "a red circle",
    "a blue star to the left of a green square",
    "三个黄色的圆形",
    "two pink hearts above a small grey triangle, and a large orange square below them on a white background",
)
QUESTIONS = ("hello", "what can you draw?", "who are you?")
CHAT_SHARE = 0.2  # of requests


@dataclass(frozen=True)
class Asked:
    """A request.

    Attributes:
        path: of the route.
        body: of the request.
        is_drawing: whether an image comes back, else words.
    """

    path: str
    body: dict[str, Any]
    is_drawing: bool


@dataclass(frozen=True)
class Answered:
    """What came back.

    Attributes:
        seconds: from asking to the whole answer.
        said: base64 of the image, or the words.
    """

    seconds: float
    said: str


def request_of(number: int, seed: int) -> Asked:
    """What request `number` asks for."""
    chance = random.Random(f"{seed} {number}")
    if chance.random() < CHAT_SHARE:
        messages = [{"role": "user", "content": chance.choice(QUESTIONS)}]
        return Asked("/v1/chat/completions", {"messages": messages, "max_tokens": 32}, False)
    body: dict[str, Any] = {"prompt": chance.choice(PROMPTS), "size": chance.choice(SIZES), "seed": number}
    guidance = chance.choice(GUIDANCE)
    return Asked("/v1/images/generations", body | ({} if guidance is None else {"guidance_scale": guidance}), True)


def arrivals(clients: int, rate: float, seconds: float, seed: int) -> list[list[tuple[float, int]]]:
    """When each client asks for what: seconds from the start, ascending, and the request's number.

    Args:
        clients: how many.
        rate: requests a second that each of them makes on average; the moments are a Poisson process.
        seconds: until the last one at most.
        seed: of the moments.
    """
    planned = []
    for client in range(clients):
        chance, moment = random.Random(f"{seed} {clients} {client}"), 0.0
        while (moment := moment + chance.expovariate(rate)) < seconds:
            planned.append((moment, client))
    own: list[list[tuple[float, int]]] = [[] for _ in range(clients)]
    for number, (moment, client) in enumerate(sorted(planned)):
        own[client].append((moment, number))
    return own


def put_load_on(url: str, plan: Sequence[Sequence[tuple[float, int]]], seed: int) -> tuple[float, dict[int, Answered]]:
    """Sends what was planned. A client that still waits for an answer when its next request is due sends it right after.

    Returns:
        Seconds until the last answer, and the answers by the requests' numbers.

    Raises:
        RuntimeError: for an answer that is an error.
    """
    answers: dict[int, Answered] = {}
    begin = threading.Barrier(len(plan) + 1)
    started = 0.0

    def work(own: Sequence[tuple[float, int]]) -> None:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=600)
        begin.wait()
        for moment, number in own:
            time.sleep(max(0.0, started + moment - time.perf_counter()))
            answers[number] = _ask(connection, request_of(number, seed))

    with ThreadPoolExecutor(len(plan)) as pool:
        clients = [pool.submit(work, own) for own in plan]
        started = time.perf_counter()
        begin.wait()
        for client in clients:
            client.result()
    return time.perf_counter() - started, answers


def _ask(connection: http.client.HTTPConnection, asked: Asked) -> Answered:
    start = time.perf_counter()
    connection.request("POST", asked.path, json.dumps(asked.body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = json.load(response)
    if response.status != 200:
        raise RuntimeError(f"A request was answered with {response.status}: {answer}")
    said = answer["data"][0]["b64_json"] if asked.is_drawing else answer["choices"][0]["message"]["content"]
    return Answered(time.perf_counter() - start, said or "")


def figures_of(
    seconds: float, cpu_seconds: float, answers: dict[int, Answered], planned: int, seed: int
) -> dict[str, Any]:
    """What a load showed: throughput, images per CPU second, and percentiles of the seconds of images and of chats."""
    drawn = [answers[number].seconds for number in answers if request_of(number, seed).is_drawing]
    asked = [answers[number].seconds for number in answers if not request_of(number, seed).is_drawing]
    return {
        "requests": len(answers),
        "lost": planned - len(answers),
        "seconds": round(seconds, 3),
        "requests_per_second": round(len(answers) / seconds, 3),
        "images_per_second": round(len(drawn) / seconds, 3),
        "images_per_cpu_second": round(len(drawn) / max(cpu_seconds, 1e-9), 3),
        "image_latency_seconds": latencies(drawn),
        "chat_latency_seconds": latencies(asked),
    }


def latencies(seconds: Sequence[float]) -> dict[str, float]:
    """Mean and percentiles; nothing of nothing."""
    ordered = sorted(seconds)
    if not ordered:
        return {}
    found = {f"p{p}": round(percentile(ordered, p), 4) for p in (50, 90, 95, 99)}
    return {"mean": round(statistics.mean(ordered), 4), **found, "max": round(ordered[-1], 4)}


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Of numbers in ascending order."""
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]
