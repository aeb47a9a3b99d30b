"""Pictures that take too long are given up, in the process that decodes them; nobody else waits for them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from helpers import picture
from running_server import data_uri, picture_in, png
from wallaroo_hf.pictures.opening import FORMATS, decode_image
from wallaroo_hf.web.errors import ApiError
from wallaroo_hf.web.picture_decoders import Decoders
from wallaroo_hf.web.turns import Turns

REPOSITORY = Path(__file__).resolve().parents[2]
LIMIT = 2**24
SMALL = png(picture(1, 48, 32))


@pytest.fixture
def decoders():
    made = Decoders(60)
    yield made
    made.close()


@pytest.fixture(scope="module")
def large() -> bytes:
    """A picture that cannot be decoded in hundredths of a second."""
    return png(Image.new("RGBA", (4096, 4096), (1, 2, 3, 4)), compress_level=1)


def _decode(decoders, data, **options):
    return decoders.decode(data, **{"name": "sent", "max_pixels": LIMIT, "formats": FORMATS, **options})[0]


def test_pictures_are_those_that_everybody_else_decodes(decoders):
    for mode in ("RGB", "L", "RGBA", "P", "CMYK", "I;16"):
        image = Image.new(mode, (40, 30)) if mode == "I;16" else picture(1, 40, 30).convert(mode)
        data = png(image, format="TIFF")
        decoded = _decode(decoders, data)
        assert decoded.mode == "RGB" and decoded.tobytes() == decode_image(data).tobytes()


def test_sentences_are_those_of_the_opener(decoders):
    for data, options in ((b"", {}), (b"no picture", {}), (SMALL[:200], {}), (SMALL, {"max_pixels": 100})):
        with pytest.raises(ValueError) as here:
            _decode(decoders, data, **options)
        with pytest.raises(ValueError) as there:
            decode_image(data, "sent", options.get("max_pixels", LIMIT), FORMATS)
        assert str(here.value) == str(there.value)
    assert _decode(decoders, SMALL).size == (48, 32)


def test_a_process_is_kept(decoders):
    decoders.start()
    (first,) = decoders._idle
    for _ in range(5):
        _decode(decoders, SMALL)
    assert decoders._idle == [first]


def test_what_takes_too_long_is_given_up(decoders, large):
    """After its seconds of computing, and the next picture is decoded."""
    with pytest.raises(ValueError, match=r"takes longer than 0\.05 seconds to decode; save it anew"):
        _decode(decoders, large, seconds=0.05)
    assert decoders._idle == []
    assert _decode(decoders, SMALL).size == (48, 32)
    assert _decode(decoders, large).size == (4096, 4096)


def test_a_process_that_gets_no_time_is_given_up(decoders, monkeypatch):
    """One that hangs without computing, too."""
    monkeypatch.setattr("wallaroo_hf.web.picture_decoders._STARVED", 0.2)
    decoders.start()
    (decoder,) = decoders._idle
    os.kill(decoder._process.pid, signal.SIGSTOP)
    with pytest.raises(ValueError, match="takes longer than"):
        _decode(decoders, SMALL, seconds=0.05)
    monkeypatch.undo()
    assert _decode(decoders, SMALL).size == (48, 32)


def test_a_process_that_breaks_down(decoders):
    """Killed while it waits, it is replaced unnoticed; killed while it works, its picture is refused."""
    decoders.start()
    decoders._idle[0]._process.kill()
    decoders._idle[0]._process.wait()
    assert _decode(decoders, SMALL).size == (48, 32)
    (decoder,) = decoders._idle
    os.kill(decoder._process.pid, signal.SIGSTOP)
    threading.Timer(0.2, decoder._process.kill).start()
    with pytest.raises(ValueError, match="its decoder broke down"):
        _decode(decoders, SMALL)
    assert _decode(decoders, SMALL).size == (48, 32)


def test_nothing_is_left_behind(decoders):
    with ThreadPoolExecutor(5) as pool:
        assert len({image.size for image in pool.map(lambda _: _decode(decoders, SMALL), range(20))}) == 1
    processes = [decoder._process for decoder in decoders._idle]
    assert 1 <= len(processes) <= 2
    decoders.close()
    assert all(process.poll() is not None for process in processes)


def test_it_starts_without_torch():
    """So that a process costs little and is there at once."""
    program = (
        "import sys; import wallaroo_hf.web.decoding_process as process;"
        "assert callable(process.main); print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "_WALLAROO_HF_REGISTER_LATER": "1"}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------------------------- turns


def test_clients_take_turns():
    """Who asks for much waits for others, who asks for little does not."""
    order = []

    async def work(turns, client, number):
        async with turns.place(client):
            order.append((client, number))
            await asyncio.sleep(0)

    async def all_at_once():
        turns = Turns(1, 60)
        async with turns.place("first"):
            jobs = [asyncio.create_task(work(turns, "much", number)) for number in range(4)]
            await asyncio.sleep(0)
            jobs += [asyncio.create_task(work(turns, "little", number)) for number in range(2)]
            await asyncio.sleep(0)
            jobs[1].cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        async with turns.place("last"):  # no place was lost
            pass

    asyncio.run(all_at_once())
    assert order == [("much", 0), ("little", 0), ("much", 2), ("little", 1), ("much", 3)]


def test_a_turn_that_does_not_come():
    async def wait():
        turns = Turns(1, 0.05)
        async with turns.place("a"):
            with pytest.raises(ApiError) as refused:
                await turns._take("b")
        async with turns.place("b"):
            return refused.value.status_code

    assert asyncio.run(wait()) == 504


# --------------------------------------------------------------------------------------------------- at the server's door


def _chat(*images: bytes) -> dict:
    content = [{"type": "image_url", "image_url": {"url": data_uri(data)}} for data in images]
    return {"messages": [{"role": "user", "content": [*content, {"type": "text", "text": "What?"}]}], "max_tokens": 1}


def test_slow_pictures_at_the_server(serve, large):
    """They are refused at every door, and honest requests of the same client come through while they are decoded."""
    with serve(image_timeout=0.1) as server:
        doors = [("edits", {"prompt": "bluer", "image": data_uri(large)}), ("chat", _chat(SMALL, large))]
        paths = {"edits": "/v1/images/edits", "chat": "/v1/chat/completions"}
        with ThreadPoolExecutor(4) as pool:
            slow = [pool.submit(server.request, paths[door], body) for door, body in doors * 2]
            edit = {"prompt": "bluer", "image": data_uri(SMALL), "seed": 1}
            status, answer, _ = server.request("/v1/images/edits", edit)
            assert status == 200 and picture_in(answer["data"][0]["b64_json"]).size == (48, 32)
            for (door, _), asked in zip(doors * 2, slow, strict=True):
                status, answer, _ = asked.result()
                assert status == 400 and "takes longer than" in answer["error"]["message"], answer
                assert answer["error"]["code"] == "invalid_image"
                assert answer["error"]["param"] == ("image" if door == "edits" else "messages.0.content.1")
        assert server.request("/v1/chat/completions", _chat(SMALL))[0] == 200


def test_the_pictures_of_a_request_share_its_time(serve, monkeypatch):
    """So that eight pictures that are a little too quick do not take eight times as long."""
    seconds = []

    def decode(self, data, name, max_pixels, formats, allowed, is_mask):
        seconds.append(allowed)
        return decode_image(data), 0.1

    monkeypatch.setattr(Decoders, "decode", decode)
    with serve(image_timeout=1.0) as server:
        assert server.request("/v1/chat/completions", _chat(SMALL, SMALL, SMALL))[0] == 200
    assert seconds == pytest.approx([1.0, 0.9, 0.8])


def test_the_server_leaves_no_processes(serve):
    with serve() as server:
        assert server.request("/v1/chat/completions", _chat(SMALL))[0] == 200
        processes = [decoder._process for decoder in server.service.images.decoders._idle]
        assert processes
    assert all(process.poll() is not None for process in processes)
