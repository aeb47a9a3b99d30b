"""Decoding pictures and videos of strangers in processes of their own, which are ended when one takes too long."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from .decoding_process import ANSWER, LOOKED_AT, READY, REQUEST

_STARVED = 60.0  # seconds that a process may wait for the processor, beyond those of computing
_KEPT = 2  # processes that stay when there is nothing to do
_PROGRAM = """import json, sys
sys.path[:] = json.loads(sys.argv[1])
from wallaroo_hf.web.decoding_process import main
main()
"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoHeader:
    """What a video's file holds.

    Attributes:
        num_frames: how many.
        rate: how many a second; None if it does not say.
        height, width: of each, in pixels.
    """

    num_frames: int
    rate: float | None
    height: int
    width: int


class Decoders:
    """Processes that decode pictures; started when they are needed, kept, and replaced where one had to be ended.

    May be used by several threads; as many processes run as calls.

    Args:
        seconds: of computing that a picture may take.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._lock = threading.Lock()
        self._idle: list[_Decoder] = []
        self._closed = False

    def start(self) -> None:
        """Starts a process before it is needed."""
        self._keep(self._take())

    def decode(
        self,
        data: bytes,
        name: str,
        max_pixels: int,
        formats: Sequence[str],
        seconds: float | None = None,
        is_mask: bool = False,
    ) -> tuple[Image.Image, float]:
        """The picture in a file as RGB, and the seconds of computing that it took.

        Args:
            data, name, max_pixels, formats: see [`decode_image`].
            seconds: of computing that it may take; default: as for all.
            is_mask: it becomes what [`wallaroo_hf.pictures.pixels.to_mask`] makes of it.

        Raises:
            ValueError: see [`decode_image`]; also if it takes too long.
        """
        allowed = self.seconds if seconds is None else min(seconds, self.seconds)
        options = {
            "kind": "mask" if is_mask else "picture",
            "name": name,
            "max_pixels": max_pixels,
            "formats": list(formats),
        }
        (width, height, used), read = self._run(data, options, allowed, f"image {name}", _pixels_of_one)
        return Image.frombytes("RGB", (width, height), read), used

    def look(self, data: bytes, max_frames: int, max_pixels: int, seconds: float) -> tuple[VideoHeader, float]:
        """What a video's file holds, and the seconds of computing that it took to find out.

        Args:
            data: the file.
            max_frames, max_pixels: see [`wallaroo_hf.pictures.video_files.VideoFile`].
            seconds: of computing that it may take.

        Raises:
            ValueError: see [`wallaroo_hf.pictures.video_files.VideoFile`]; also if it takes too long.
        """
        options = {"kind": "look", "max_frames": max_frames, "max_pixels": max_pixels}
        (width, height, used), read = self._run(data, options, seconds, "video sent", lambda *_: LOOKED_AT.size)
        num_frames, rate = LOOKED_AT.unpack(read)
        return VideoHeader(num_frames, rate or None, height, width), used

    def frames(
        self, data: bytes, indices: Sequence[int], max_frames: int, max_pixels: int, seconds: float
    ) -> tuple[np.ndarray, float]:
        """Frames of a video, `(T, H, W, 3)` uint8, and the seconds of computing that they took.

        Args:
            data, max_frames, max_pixels, seconds: see [`look`].
            indices: which, ascending.

        Raises:
            ValueError: see [`look`].
        """
        options = {"kind": "frames", "max_frames": max_frames, "max_pixels": max_pixels, "indices": list(indices)}
        size_of = partial(_pixels_of_several, len(indices))
        (width, height, used), read = self._run(data, options, seconds, "video sent", size_of)
        return np.frombuffer(read, dtype=np.uint8).reshape(len(indices), height, width, 3), used

    def _run(
        self, data: bytes, options: dict[str, Any], seconds: float, what: str, size_of: Callable[[int, int], int]
    ) -> tuple[tuple[int, int, float], bytes]:
        """Width, height and seconds of an answer, and what follows it.

        Args:
            data: the file.
            options: of the request.
            seconds: of computing that it may take.
            what: what messages call it.
            size_of: how many bytes follow an answer of a width and height.
        """
        decoder = self._take()
        try:
            decoded = decoder.decode(data, options, max(seconds, 0.01), size_of)
        except _Ended as error:
            raise ValueError(f"The {what} {error}; save it anew or give a smaller one.") from error
        finally:
            self._keep(decoder)
        if isinstance(decoded, str):
            raise ValueError(decoded)
        return decoded

    def close(self) -> None:
        """Ends the processes that are idle, and the others when they are done."""
        with self._lock:
            self._closed = True
            ended, self._idle = self._idle, []
        for decoder in ended:
            decoder.end()

    def _take(self) -> "_Decoder":
        with self._lock:
            decoder = self._idle.pop() if self._idle else None
        if decoder is None or not decoder.alive:
            decoder = _Decoder()
        return decoder

    def _keep(self, decoder: "_Decoder") -> None:
        with self._lock:
            if decoder.alive and not self._closed and len(self._idle) < _KEPT:
                self._idle.append(decoder)
                return
        decoder.end()


def _pixels_of_one(width: int, height: int) -> int:
    return 3 * width * height


def _pixels_of_several(count: int, width: int, height: int) -> int:
    return count * _pixels_of_one(width, height)


class _Ended(Exception):
    """A process ended before it answered; says why."""


class _Decoder:
    """One process. Used by one thread at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # readers of images print what they think of a file
            env={**os.environ, "_WALLAROO_HF_REGISTER_LATER": "1"},  # torch is not needed
            start_new_session=True,  # Ctrl-C is for the server
        )
        self._ready = self._late = False

    @property
    def alive(self) -> bool:
        """Whether it can be given another picture."""
        return not self._late and self._process.poll() is None

    def decode(
        self, data: bytes, options: dict[str, Any], seconds: float, size_of: Callable[[int, int], int]
    ) -> tuple[tuple[int, int, float], bytes] | str:
        """Width, height, seconds and what follows them, or what is wrong with the file.

        Raises:
            _Ended: if the process had to be ended, or ended by itself.
        """
        options = {**options, "seconds": seconds}
        watchdog = threading.Timer(seconds + _STARVED, self._is_late)
        watchdog.daemon = True
        watchdog.start()
        try:
            return self._ask(json.dumps(options).encode(), data, size_of)
        except (OSError, EOFError) as error:
            status = self._status()
            if self._late or status == -getattr(signal, "SIGPROF", 0):
                raise _Ended(f"takes longer than {seconds:.2g} seconds to decode") from error
            logger.error("A process that decoded a picture ended with status %s.", status)
            raise _Ended("could not be read (its decoder broke down)") from error
        finally:
            watchdog.cancel()

    def _ask(
        self, options: bytes, data: bytes, size_of: Callable[[int, int], int]
    ) -> tuple[tuple[int, int, float], bytes] | str:
        assert self._process.stdin is not None
        if not self._ready:
            self._read(len(READY))
            self._ready = True
        self._process.stdin.write(REQUEST.pack(len(options), len(data)) + options)
        self._process.stdin.write(data)
        self._process.stdin.flush()
        seconds, width, height, num_chars = ANSWER.unpack(self._read(ANSWER.size))
        if num_chars:
            return self._read(num_chars).decode()
        return (width, height, seconds), self._read(size_of(width, height))

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def _is_late(self) -> None:
        self._late = True
        self._process.kill()

    def _status(self) -> int:
        """How the process ended, which speaks no more."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(5)
        self._process.kill()
        return self._process.wait()

    def end(self) -> None:
        """Ends the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what was not sent
                if pipe is not None:
                    pipe.close()
