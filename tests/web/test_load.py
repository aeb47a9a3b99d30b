"""Many clients at once: nobody's answer is lost or somebody else's."""

from __future__ import annotations

import asyncio
import base64
import json
import time

from helpers import generators
from running_server import picture_in
from wallaroo_hf import WallarooPipeline

NUM_REQUESTS = 1000
SETTINGS = {"size": "32x32", "temperature": 9.0}  # the tiny model is sure of itself; images shall differ
WORDS = ("red", "blue", "green", "small", "large", "old", "new", "very", "two", "of")


def _prompt(number: int) -> str:
    """Of many lengths, no two alike."""
    return " ".join(WORDS[int(digit)] for digit in str(number)) + f" {number}"


async def _draw(address: tuple[str, int], number: int) -> tuple[int, bytes, float]:
    """One request on a connection of its own: status, pixels (or the error) and seconds."""
    start = time.monotonic()
    body = json.dumps({"prompt": _prompt(number), "seed": number, **SETTINGS}).encode()
    reader, writer = await asyncio.open_connection(*address)
    head = "POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write((head + kind).encode() + body)
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    if status != 200:
        return status, body, time.monotonic() - start
    item = json.loads(body)["data"][0]
    assert item["seed"] == number
    return status, base64.b64decode(item["b64_json"]), time.monotonic() - start


def test_a_thousand_clients(serve, compact, small_processor):
    """Each gets the image of its own prompt and seed, as the pipeline draws it in other batches."""
    with serve(max_queue=NUM_REQUESTS, max_batch=50, timeout=1500) as server:

        async def all_at_once():
            return await asyncio.gather(*(_draw(server.address, number) for number in range(NUM_REQUESTS)))

        answers = asyncio.run(asyncio.wait_for(all_at_once(), 240))
        assert [status for status, _, _ in answers] == [200] * NUM_REQUESTS
        assert server.metric("wallaroo_images_total") == NUM_REQUESTS
        steps, rows = (server.metric(f"wallaroo_step_rows_{what}") for what in ("count", "sum"))
        assert steps < rows / 10  # they were drawn together
        assert server.metric("wallaroo_cancelled_total") == 0
        drawn = [picture_in(base64.b64encode(data).decode()).tobytes() for _, data, _ in answers]
    assert len(set(drawn)) > 0.99 * NUM_REQUESTS  # 4 codes of 1024: a few may be drawn twice
    pipe = WallarooPipeline(model=compact.model, processor=small_processor, device="cpu")
    for first in range(37):
        numbers = range(first, NUM_REQUESTS, 37)
        prompts, own = [_prompt(number) for number in numbers], generators(*numbers)
        images = pipe(prompts, generator=own, height=32, width=32, temperature=9.0).images
        assert [drawn[number] for number in numbers] == [image.tobytes() for image in images]
