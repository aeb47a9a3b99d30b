"""Who begins when: drawings join those that are under way, answers take turns, and nobody holds others up."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from helpers import picture
from running_server import data_uri, picture_in, png
from wallaroo_hf.families.contract import Answer as Said
from wallaroo_hf.web.answer_batches import AnswerBatches
from wallaroo_hf.web.batching import Batcher, Job, events
from wallaroo_hf.web.errors import ApiError
from wallaroo_hf.web.requests import DRAWING, Answer, Drawing, DrawingSettings, Ending, TextSettings
from wallaroo_hf.web.worker import Over, Worker

LONG = {"prompt": "a very large cat", "size": "512x512", "seed": 3}  # a thousand codes


def _send(server, path, body) -> socket.socket:
    """Sends a request and does not wait for the answer."""
    connection = socket.create_connection(server.address)
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return connection


# ---------------------------------------------------------------------------------------------------- on a real model


def test_drawings_join_while_others_are_drawn(serve, eventually):
    """Of other sizes, settings and tasks; each is the image that it is alone, and done long before the long one."""
    image = data_uri(png(picture(1, 40, 50)))
    asked = [
        ("generations", {"prompt": "a dog", "size": "32x32", "seed": 1}),
        ("generations", {"prompt": "two dogs under a tree", "size": "64x32", "seed": 2, "guidance_scale": 1.0}),
        ("generations", {"prompt": "x", "size": "32x48", "seed": 3, "top_k": 5, "temperature": 2.0}),
        ("edits", {"prompt": "bluer", "seed": 4, "image": image}),
    ]

    def ask(item):
        status, answer, _ = server.request(f"/v1/images/{item[0]}", item[1])
        assert status == 200, answer
        return picture_in(answer["data"][0]["b64_json"]).tobytes()

    with serve(max_batch=3) as server:
        alone = [ask(item) for item in asked]
        assert server.metric("wallaroo_joined_total") == 0
        long = _send(server, "/v1/images/generations", LONG)
        eventually(lambda: server.service.engine.busy)
        with ThreadPoolExecutor(len(asked)) as pool:
            joined = list(pool.map(ask, asked))
        assert joined == alone
        assert [job.request.prompt for job in server.service.batcher.running] == [LONG["prompt"]]
        assert server.metric("wallaroo_joined_total") == len(asked)
        assert server.metric("wallaroo_wait_seconds_count") == 2 * len(asked) + 1
        # one who leaves frees a row in the middle
        long.close()
        eventually(lambda: not server.service.batcher.running)
        assert server.metric("wallaroo_cancelled_total") == 1
        assert server.metric("wallaroo_step_rows_sum") > server.metric("wallaroo_step_rows_count")


def test_what_fails_in_the_middle_fails_alone(serve, eventually, monkeypatch):
    """A picture that cannot be finished, beside one that can."""
    with serve() as server:
        expected = server.draw("a dog", 1, "48x32").tobytes()
        lane = server.service.engine._lanes[DRAWING]
        finish = lane.pipe.finish

        def failing(drawn, prepared):
            if drawn.pixels[0].shape[-1] == 64:
                raise RuntimeError("a secret path")
            return finish(drawn, prepared)

        monkeypatch.setattr(lane.pipe, "finish", failing)
        long = _send(server, "/v1/images/generations", LONG)
        eventually(lambda: server.service.engine.busy)
        with ThreadPoolExecutor(2) as pool:
            good = pool.submit(server.draw, "a dog", 1, "48x32")
            bad = pool.submit(
                server.request, "/v1/images/generations", {"prompt": "a cat", "size": "64x32", "seed": 2}
            )
            status, answer, _ = bad.result()
            assert status == 500 and "secret" not in answer["error"]["message"]
            assert good.result().tobytes() == expected
        assert [job.request.prompt for job in server.service.batcher.running] == [LONG["prompt"]]
        long.close()


def test_a_full_device_is_tried_again_with_less(serve, hold, monkeypatch):
    """Whoever began together gets their images all the same, drawn one after the other."""
    with serve(max_wait=2.0, max_batch=3) as server:
        gate = hold(server)
        lane = server.service.engine._lanes[DRAWING]
        session = server.service.engine.model.session(3)
        forward, rows = session._joint._forward, []

        def full(input_ids):
            rows.append(len(input_ids))
            if len(input_ids) > 2:
                raise torch.OutOfMemoryError("no room for that")
            return forward(input_ids)

        monkeypatch.setattr(session._joint, "_forward", full)
        monkeypatch.setattr(lane, "_session", session, raising=False)
        with ThreadPoolExecutor(3) as pool:
            drawn = [pool.submit(server.draw, "a cat", seed) for seed in range(3)]
            gate.set()
            images = [item.result().tobytes() for item in drawn]
        assert rows[0] == 6 and set(rows) >= {6, 2}
        server.service.batcher.max_wait = 0.0
        assert images == [server.draw("a cat", seed).tobytes() for seed in range(3)]


def test_what_is_out_already_keeps_nobody_from_another_try():
    """Previews of one request cannot be taken back; those that it shared a forward with are drawn again."""

    async def main():
        jobs = [Job(None, "a", asyncio.Queue()) for _ in range(3)]
        jobs[1].emit("a preview")
        worker, error = Worker(None, None), RuntimeError("full")
        assert worker._settle([Over(jobs, error)]) == [Over([jobs[1]], error)]
        assert list(worker._again) == [[jobs[0], jobs[2]]]
        worker._again.clear()
        assert worker._settle([Over(jobs[1:], error)]) == [Over([jobs[1]], error)]
        assert list(worker._again) == [[jobs[2]]]

    asyncio.run(main())


def test_a_preview_that_fails_is_its_own_requests_matter(serve, hold, monkeypatch):
    with serve(max_wait=2.0, max_batch=2) as server:
        gate = hold(server)
        lane = server.service.engine._lanes[DRAWING]

        def fail(*arguments):
            raise RuntimeError("no preview")

        monkeypatch.setattr(lane.pipe, "look_at", fail)
        shown = {"prompt": "a dog", "size": "32x32", "stream": True, "partial_images": 1}
        with ThreadPoolExecutor(2) as pool:
            plain = pool.submit(server.draw, "a cat", 1)
            bad = _send(server, "/v1/images/generations", shown)
            gate.set()
            image = plain.result().tobytes()
        bad.settimeout(30)
        heard = b""
        while b"error" not in heard:
            heard += bad.recv(1000) or pytest.fail(f"no error came: {heard!r}")
        bad.close()
        server.service.batcher.max_wait = 0.0
        assert server.draw("a cat", 1).tobytes() == image


def test_who_leaves_is_forgotten(serve, eventually):
    """The session holds nothing of drawings that nobody waits for."""
    with serve() as server:
        long = _send(server, "/v1/images/generations", LONG)
        eventually(lambda: server.service.engine.busy)
        session = server.service.engine._lanes[DRAWING]._session
        eventually(lambda: session._places)
        long.close()
        eventually(lambda: not server.service.batcher.running)
        assert not session._places and not session._cancelled and not session._joint._states


def test_a_long_answer_holds_nobody(serve, eventually):
    """Neither a short one nor a drawing."""
    with serve() as server:
        chat = {"messages": [{"role": "user", "content": "Tell me more."}], "temperature": 2, "seed": 1}
        long = _send(server, "/v1/chat/completions", {**chat, "max_tokens": 2000, "stream": True})
        assert b"200 OK" in long.recv(100)
        short = {**chat, "max_tokens": 3, "seed": 2}
        answer = server.request("/v1/chat/completions", short)[1]["choices"][0]["message"]
        image = server.draw("a cat", 1).tobytes()
        assert [job.request.max_new_tokens for job in server.service.batcher.running] == [2000]
        long.close()
        eventually(lambda: not server.service.batcher.running)
        assert server.request("/v1/chat/completions", short)[1]["choices"][0]["message"] == answer
        assert server.draw("a cat", 1).tobytes() == image


# --------------------------------------------------------------------------------------------------- answers by turns


class Talker:
    """A model that says as many words as it may, a forward each; it writes down whose forward it was."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self):
        self.forwards = []

    def converse(self, batch, *, follow, max_new_tokens, **settings):
        name, goes_on = batch["name"], [True] * len(max_new_tokens)
        for word in range(max(max_new_tokens)):
            self.forwards.append(name)
            for row, most in enumerate(max_new_tokens):
                if word < most and goes_on[row]:
                    goes_on[row] = follow.token(row, ord("a")) is not False
                    if word == most - 1 or not goes_on[row]:
                        goes_on[row] = False
                        follow.ended(row, Said(new_tokens=word + 1))
            if not any(goes_on):
                return
            if name == "bad" and word == 2:
                raise RuntimeError("out of words")


class Words(dict):
    """A batch's tensors; here its name."""

    def to(self, *_, **__):
        return self


class Letters:
    """A processor that knows one letter."""

    def collate(self, rows):
        return rows[0]


@pytest.fixture
def talker(monkeypatch):
    """Answers of a model that needs no weights; `jobs(name, *words)` makes those of a batch."""

    class Spelled:
        stopped = False

        def put(self, token):
            return chr(token)

        def end(self):
            return ""

    monkeypatch.setattr("wallaroo_hf.web.answer_writers.TextDecoder.of", lambda processor, stop: Spelled())
    model = Talker()
    return model, AnswerBatches(model, Letters())


def _answers(name, *words):
    return [Job(Answer(Words(name=name), "text", 0, TextSettings(), most), "a", asyncio.Queue()) for most in words]


def _turns(batches, limit=10_000):
    """Steps until nothing is left: what was over after how many."""
    over = []
    for turn in range(limit):
        if not batches.busy:
            return over
        over += [(turn, end) for end in batches.step()]
    raise AssertionError("it does not end")


def test_answers_take_turns_forward_by_forward(talker):
    model, batches = talker

    async def main():
        long, short = _answers("long", 500), _answers("short", 3)
        batches.begin(long)
        while not batches.takes_more:
            assert not batches.step()
        assert len(model.forwards) == 32  # young batches are not interrupted
        batches.begin(short)
        assert not batches.takes_more
        ends = _turns(batches)
        assert [end.jobs for _, end in ends] == [short, long] and ends[0][0] <= 4
        assert model.forwards[32:38] == ["long", "short"] * 3
        assert len(model.forwards) == 503 and batches.num_rows == 0

    asyncio.run(main())


def test_no_more_batches_than_have_a_thread(talker):
    model, batches = talker

    async def main():
        for number in range(4):
            batches.begin(_answers(f"{number}", 400))
            for _ in range(32):
                batches.step()
            assert batches.takes_more == (number < 3)
        assert model.forwards[-4:] == ["0", "1", "2", "3"]
        _turns(batches)
        assert batches.takes_more and len(model.forwards) == 1600

    asyncio.run(main())


def test_an_answer_that_fails_fails_alone(talker):
    _, batches = talker

    async def main():
        good, bad = _answers("good", 200), _answers("bad", 100)
        batches.begin(good)
        while not batches.takes_more:
            batches.step()
        batches.begin(bad)
        ends = [end for _, end in _turns(batches)]
        assert [(end.jobs, str(end.error or "")) for end in ends] == [(bad, "out of words"), (good, "")]

    asyncio.run(main())


def test_who_leaves_is_not_written_for(talker):
    model, batches = talker

    async def main():
        jobs = _answers("two", 300, 300)
        batches.begin(jobs)
        batches.step()
        for job in jobs:
            job.cancel(ApiError(499, "gone"))
        assert [end.jobs for _, end in _turns(batches)] == [jobs] and len(model.forwards) == 2
        gone = _answers("gone", 5)
        gone[0].cancel(ApiError(499, "gone"))
        batches.begin(gone)
        assert [end.jobs for _, end in _turns(batches)] == [gone] and "gone" not in model.forwards

    asyncio.run(main())


def test_what_is_abandoned_keeps_no_thread(talker):
    """Threads hold the keys and values of their answers."""
    _, batches = talker

    async def main():
        old, new = _answers("old", 300), _answers("new", 300)
        batches.begin(old)
        while not batches.takes_more:
            batches.step()
        batches.begin(new)  # not stepped on yet
        threads = [batch._thread for batch in batches._batches]
        ends = batches.abandon(RuntimeError("broken"))
        assert [end.jobs for end in ends] == [old, new] and not batches.busy
        for thread in threads:
            if thread.ident is not None:
                thread.join(10)
            assert not thread.is_alive()

    asyncio.run(main())


def test_rows_of_a_batch_end_one_by_one(talker):
    """Whoever is done has the answer while the others of the batch go on."""
    _, batches = talker

    async def main():
        short, long = _answers("both", 2, 50)
        batches.begin([short, long])
        for _ in range(4):
            assert not batches.step()
        await asyncio.sleep(0)
        assert short.over and not long.over and batches.num_rows == 1
        said = [event async for _, event in events([short])]
        assert isinstance(said[-1], Ending) and said[-1].num_new_tokens == 2
        _turns(batches)

    asyncio.run(main())


# ------------------------------------------------------------------------------------------------------------- places


class Rows:
    """A computer with rows: jobs end after as many steps as they ask for, those that ask for None when they may."""

    def __init__(self):
        self.left, self.begun, self.most = {}, [], 0
        self.gate, self.may_end = threading.Event(), threading.Event()

    @property
    def busy(self):
        return bool(self.left)

    def takes(self, lane):
        return True

    def begin(self, jobs):
        self.begun.append([job.request for job in jobs])
        self.left |= {job: job.request for job in jobs}
        self.most = max(self.most, len(self.left))

    def step(self):
        assert self.gate.wait(60)
        time.sleep(0.001)
        over = [job for job, steps in self.left.items() if (self.may_end.is_set() if steps is None else steps == 1)]
        self.left = {job: steps and steps - 1 for job, steps in self.left.items() if job not in over}
        return [Over([job]) for job in over]


def test_a_place_is_taken_as_soon_as_it_is_free():
    computer = Rows()

    async def main():
        batcher = Batcher(computer, 2, 0.0, 10, 100)
        batcher.start()
        inbox = asyncio.Queue()
        jobs = [Job(steps, None, inbox) for steps in (None, 1, 2, 3)]
        batcher.submit(jobs)
        computer.gate.set()
        await asyncio.gather(*(_until_over(job) for job in jobs[1:]))
        assert not jobs[0].over  # none of them waited for it
        computer.may_end.set()
        await _until_over(jobs[0])
        await batcher.drain()
        assert not batcher.alive

    asyncio.run(asyncio.wait_for(main(), 60))
    assert computer.begun == [[None, 1], [2], [3]] and computer.most == 2


def test_lanes_have_places_and_turns_of_their_own():
    computer = Rows()

    async def main():
        batcher = Batcher(computer, 1, 0.0, 10, 100)
        batcher.start()
        slow = [Job(None, None, asyncio.Queue(), lane="slow") for _ in range(2)]
        quick = [Job(1, None, asyncio.Queue(), lane="quick") for _ in range(3)]
        for job in (*slow, *quick):
            batcher.submit([job])
        computer.gate.set()
        await asyncio.gather(*(_until_over(job) for job in quick))
        assert not any(job.over for job in slow) and [job in batcher.running for job in slow] == [True, False]
        computer.may_end.set()
        await asyncio.gather(*(_until_over(job) for job in slow))
        await batcher.drain()

    asyncio.run(asyncio.wait_for(main(), 60))


async def _until_over(job):
    while not job.over:
        await asyncio.sleep(0.001)


def test_what_a_drawing_is_counted_as():
    settings = DrawingSettings((32, 32))
    plain, edit = Drawing("a cat", 1, settings), Drawing("bluer", 1, settings, picture(1))
    assert (plain.task, edit.task) == ("generation", "editing")
    assert plain.group == edit.group == Drawing("a dog", 2, DrawingSettings((64, 32), values=(("top_k", 5),))).group
