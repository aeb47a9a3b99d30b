"""The queue: order, groups, limits, failures; and that batches do not show in results."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from helpers import generators, picture
from running_server import data_uri, picture_in, png
from wallaroo_hf import WallarooPipeline
from wallaroo_hf.web.batching import Batcher, Job, events
from wallaroo_hf.web.errors import ApiError
from wallaroo_hf.web.requests import Answer, TextSettings
from wallaroo_hf.web.worker import Over


class Recorder:
    """A computer that writes down what begins together, one batch at a time; requests that are exceptions are raised."""

    def __init__(self):
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()
        self.under_way = []

    @property
    def busy(self):
        return bool(self.under_way)

    def takes(self, lane):
        return not self.under_way

    def begin(self, jobs):
        assert self.gate.wait(600)
        self.batches.append([job.request for job in jobs])
        for job in jobs:
            if isinstance(job.request, BaseException):
                raise job.request
        self.under_way.append(jobs)

    def step(self):
        (jobs,), self.under_way = self.under_way, []
        for job in jobs:
            job.emit(str(job.request))
        return [Over([job]) for job in jobs]


def _jobs(*requests, group="a", **options):
    inbox = asyncio.Queue()
    return [Job(request, group, inbox, **options) for request in requests]


async def _results(jobs):
    return [event async for event in events(jobs)]


def _run(scenario, **options):
    """Runs a scenario with a batcher that works; returns what its worker recorded."""
    worker = Recorder()

    async def main():
        batcher = Batcher(
            worker, **{"max_batch": 4, "max_wait": 0.0, "max_queue": 10, "max_queue_bytes": 100} | options
        )
        batcher.start()
        await scenario(batcher, worker)
        await batcher.drain()

    asyncio.run(asyncio.wait_for(main(), 120))
    return worker.batches


def test_the_oldest_decides_the_group_and_no_group_starves():
    async def scenario(batcher, worker):
        worker.gate.clear()
        first = _jobs(0)
        batcher.submit(first)
        await asyncio.sleep(0.05)  # it runs, the rest waits
        waiting = [*_jobs(1, 2, group="a"), *_jobs(3, group="b"), *_jobs(4, 5, 6, group="a")]
        for job in waiting:
            batcher.submit([job])
        worker.gate.set()
        for job in (*first, *waiting):
            while not job.over:
                await asyncio.sleep(0.001)

    assert _run(scenario) == [[0], [1, 2, 4, 5], [3], [6]]


def test_clients_take_turns():
    """Who asks for much does not keep others waiting, and is not kept waiting by them."""

    async def scenario(batcher, worker):
        worker.gate.clear()
        batcher.submit(_jobs("a0", client="a"))
        await asyncio.sleep(0.05)
        jobs = [_jobs("a1", "a2", "a3", "a4", "a5", client="a"), _jobs("b1", client="b")]
        jobs += [_jobs("c1", "c2", client="c", group="other"), _jobs("b2", client="b")]
        for own in jobs:
            batcher.submit(own)
        worker.gate.set()
        await _results(jobs[0])
        later = [_jobs("a6", client="a"), _jobs("d1", client="d")]
        for own in later:
            batcher.submit(own)
        for own in (*jobs[1:], *later):
            await _results(own)

    batches = _run(scenario, max_batch=2)
    assert batches[:5] == [["a0"], ["a1", "b1"], ["c1", "c2"], ["a2", "b2"], ["a3", "a4"]]
    assert sorted(item for batch in batches for item in batch) == sorted(
        ["a0", "a1", "a2", "a3", "a4", "a5", "a6", "b1", "b2", "c1", "c2", "d1"]
    )


def test_a_client_cannot_be_overtaken_forever():
    """However many newcomers there are, each goes before a waiting job once at most."""

    async def scenario(batcher, worker):
        patient = _jobs("a1", "a2", "a3", client="a")
        batcher.submit(patient)
        for number in range(40):
            batcher.submit(_jobs(f"new {number}", client=f"client {number}"))
            while batcher.running or batcher.num_waiting > 3:
                await asyncio.sleep(0.001)
        await _results(patient)

    order = [item for batch in _run(scenario, max_batch=1) for item in batch]
    assert order.index("a3") < 10


def test_jobs_that_must_be_alone():
    async def scenario(batcher, worker):
        jobs = _jobs(1, 2, alone=True)
        batcher.submit(jobs)
        assert await _results(jobs) == [(0, "1"), (1, "2")]

    assert _run(scenario) == [[1], [2]]


def test_an_idle_worker_waits_for_companions_but_not_for_a_full_batch():
    async def scenario(batcher, worker):
        first, second = _jobs(1), _jobs(2)
        batcher.submit(first)
        await asyncio.sleep(0.01)
        batcher.submit(second)
        await asyncio.gather(_results(first), _results(second))
        full = _jobs(3, 4, 5, 6)
        batcher.max_wait = 60.0
        batcher.submit(full)
        await asyncio.wait_for(_results(full), 30)

    assert _run(scenario, max_wait=1.0) == [[1, 2], [3, 4, 5, 6]]


def test_a_full_queue_takes_all_of_a_request_or_nothing():
    async def scenario(batcher, worker):
        worker.gate.clear()
        running = _jobs(0, group="first")
        batcher.submit(running)
        await asyncio.sleep(0.05)
        waiting = _jobs(*range(1, 10))
        batcher.submit(waiting)
        with pytest.raises(ApiError) as full:
            batcher.submit(_jobs(10, 11))
        assert full.value.status_code == 429 and int(full.value.headers["Retry-After"]) >= 1
        batcher.submit(_jobs(10))
        for job in waiting:
            job.cancel(ApiError(499, "gone"))
        batcher.submit(_jobs(12, 13))  # cancelled ones take no room
        worker.gate.set()

    batches = _run(scenario)
    assert batches[0] == [0] and not {11, *range(1, 10)} & {item for batch in batches for item in batch}


def test_memory_of_what_waits_is_limited():
    async def scenario(batcher, worker):
        worker.gate.clear()
        batcher.submit(_jobs(0))
        await asyncio.sleep(0.05)
        batcher.submit(_jobs(1, num_bytes=1000))  # alone it may be as large as it likes
        with pytest.raises(ApiError):
            batcher.submit(_jobs(2, num_bytes=1))
        worker.gate.set()

    _run(scenario)


def test_one_bad_job_fails_alone():
    async def scenario(batcher, worker):
        jobs = [_jobs(request)[0] for request in (1, 2, ValueError("no such thing"), 4)]
        batcher.submit(jobs)
        for number, job in enumerate(jobs):
            if number == 2:
                with pytest.raises(ApiError, match="no such thing") as failure:
                    await _results([job])
                assert failure.value.status_code == 400
            else:
                assert await _results([job]) == [(0, str(job.request))]

    assert len(_run(scenario)) == 5  # four together, two, two, and the second pair one by one


def test_bugs_and_full_memory_are_not_the_clients_fault():
    async def scenario(batcher, worker):
        for error, status in ((RuntimeError("a secret path"), 500), (torch.OutOfMemoryError("secret"), 503)):
            job = _jobs(error)
            batcher.submit(job)
            with pytest.raises(ApiError) as failure:
                await _results(job)
            assert failure.value.status_code == status and "secret" not in failure.value.detail
        fine = _jobs(1)
        batcher.submit(fine)
        assert await _results(fine) == [(0, "1")]

    _run(scenario)


def test_draining_finishes_what_runs_and_refuses_what_waits():
    async def scenario(batcher, worker):
        worker.gate.clear()
        running, waiting = _jobs(1, group="a"), _jobs(2, group="b")
        batcher.submit(running)
        await asyncio.sleep(0.05)
        batcher.submit(waiting)
        drained = asyncio.create_task(batcher.drain())
        with pytest.raises(ApiError) as refused:
            await _results(waiting)
        assert refused.value.status_code == 503
        with pytest.raises(ApiError):
            batcher.submit(_jobs(3))
        worker.gate.set()
        assert await _results(running) == [(0, "1")]
        await drained

    assert _run(scenario) == [[1]]


def test_draining_finishes_requests_that_were_begun():
    """Also those of which a part still waits."""

    async def scenario(batcher, worker):
        worker.gate.clear()
        begun = _jobs(1, 2, 3)
        batcher.submit(begun)
        await asyncio.sleep(0.05)
        other = _jobs(4)
        batcher.submit(other)
        drained = asyncio.create_task(batcher.drain())
        with pytest.raises(ApiError):
            await _results(other)
        worker.gate.set()
        assert await _results(begun) == [(0, "1"), (1, "2"), (2, "3")]
        await drained

    assert _run(scenario, max_batch=2) == [[1, 2], [3]]


# ------------------------------------------------------------------------------------------------- on a real model


@pytest.fixture(scope="module")
def together(serve):
    """A server that waits long for companions."""
    with serve(max_batch=6, max_wait=2.0) as server:
        yield server


def test_drawings_do_not_depend_on_their_batch(together, compact, small_processor):
    """Float32: each image is the one that its seed gives alone, though prompts differ in length."""
    pipe = WallarooPipeline(model=compact.model, processor=small_processor, device="cpu")
    prompts = ["a cat", "a very long story of a cat that sleeps under a tree", "蓝色的星星", "x", "a dog", "two dogs"]
    alone = [
        pipe(prompt, height=48, width=48, generator=generators(seed)).images[0] for seed, prompt in enumerate(prompts)
    ]
    with ThreadPoolExecutor(len(prompts)) as pool:
        drawn = list(pool.map(lambda item: together.draw(item[1], item[0], "48x48"), enumerate(prompts)))
    assert [image.tobytes() for image in drawn] == [image.tobytes() for image in alone]
    assert together.metric("wallaroo_batch_size_count") == 1 and together.metric("wallaroo_batch_size_sum") == 6


def test_edits_do_not_depend_on_their_batch(together, compact, small_processor):
    pipe = WallarooPipeline(model=compact.model, processor=small_processor, device="cpu")
    sources = [picture(seed, 60 + seed, 50) for seed in range(6)]
    alone = [pipe("bluer", image=source, generator=generators(9)).images[0] for source in sources]

    def edit(source):
        body = {"prompt": "bluer", "seed": 9, "image": data_uri(png(source))}
        return picture_in(together.request("/v1/images/edits", body)[1]["data"][0]["b64_json"])

    before = together.metric("wallaroo_batch_size_count")
    with ThreadPoolExecutor(6) as pool:
        drawn = list(pool.map(edit, sources))
    assert [image.size for image in drawn] == [source.size for source in sources]
    assert [image.tobytes() for image in drawn] == [image.tobytes() for image in alone]
    assert together.metric("wallaroo_batch_size_count") == before + 1


@pytest.mark.parametrize("sampling", [{}, {"temperature": 2.0, "top_k": 50, "top_p": 0.95}], ids=["greedy", "sampled"])
def test_answers_do_not_depend_on_their_batch(together, eventually, sampling):
    """With and without images."""

    def ask(number):
        content = [{"type": "text", "text": "Tell me " + "more and " * number + "more."}]
        if number % 2:
            content.insert(0, {"type": "image_url", "image_url": {"url": data_uri(png(picture(number)))}})
        body = {"messages": [{"role": "user", "content": content}], "max_tokens": 5 + number, **sampling}
        status, answer, _ = together.request("/v1/chat/completions", {**body, "seed": number})
        assert status == 200
        return answer["choices"][0]["message"]["content"], answer["usage"]["completion_tokens"]

    together.service.batcher.max_wait = 2.0
    before = together.metric("wallaroo_batch_size_count")
    with ThreadPoolExecutor(6) as pool:
        asked_together = list(pool.map(ask, range(6)))
    eventually(
        lambda: together.metric("wallaroo_batch_size_count") > before
    )  # answers are out before their batch ends
    assert together.metric("wallaroo_batch_size_count") == before + 1
    together.service.batcher.max_wait = 0.0
    assert asked_together == [ask(number) for number in range(6)]
    assert len({words for words, _ in asked_together}) > 1
    eventually(lambda: not together.service.batcher.running)


def test_long_chats_do_not_go_with_short_ones():
    inputs = {length: {"input_ids": torch.zeros(1, length)} for length in (5, 512, 513, 1000, 5000)}
    groups = [Answer(own, "text", 0, TextSettings(), 5).group for own in inputs.values()]
    assert groups[0] == groups[1] != groups[2] == groups[3] != groups[4]


def test_other_sizes_and_settings_go_together(together):
    """They begin together and each is the image that it is alone."""
    asked = [{}, {"size": "32x48"}, {"top_k": 5}, {"guidance_scale": 1.0, "size": "64x32"}]
    together.service.batcher.max_wait = 0.0
    alone = [together.draw("a cat", 1, **one) for one in asked]
    together.service.batcher.max_wait = 2.0
    before, rows = together.metric("wallaroo_batch_size_count"), together.metric("wallaroo_batch_size_sum")
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda item: together.draw("a cat", 1, **item), asked))
    together.service.batcher.max_wait = 0.0
    assert together.metric("wallaroo_batch_size_count") == before + 1
    assert together.metric("wallaroo_batch_size_sum") == rows + 4
    assert [image.tobytes() for image in drawn] == [image.tobytes() for image in alone]
