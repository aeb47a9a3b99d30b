"""The process that decodes pictures and videos for a server or page: files come in, pixels or a sentence go out.

It is a process because no thread can be stopped inside of a decoder. It imports little, so that a new one is there at once.
Run by [`wallaroo_hf.web.picture_decoders`]; ends when nobody speaks to it any more.
"""

import json
import signal
import struct
import sys
import time
from typing import Any, BinaryIO

from PIL import Image

from ..pictures.opening import decode_image
from ..pictures.pixels import to_mask
from ..pictures.video_files import VideoFile

READY = b"+"  # before everything else
REQUEST = struct.Struct(">IQ")  # lengths of the options (JSON) and of the file that follow
ANSWER = struct.Struct(
    ">dIII"
)  # seconds of computing; width and height of the RGB pixels that follow, or length of a sentence
LOOKED_AT = struct.Struct(
    ">Qd"
)  # in place of pixels: how many frames a video has, and how many a second (0 = not known)


def main() -> None:
    """Answers one request after another from standard input on standard output."""
    Image.init()  # imports the readers, which is not for the first picture to wait for
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    answers.write(READY)
    answers.flush()
    while head := requests.read(REQUEST.size):
        num_options, num_bytes = REQUEST.unpack(head)
        options = json.loads(requests.read(num_options))
        _answer(requests.read(num_bytes), options, answers)


def _answer(data: bytes, options: dict[str, Any], answers: BinaryIO) -> None:
    began = time.process_time()
    if hasattr(signal, "setitimer"):  # ends this process, wherever it computes; what others compute does not count
        signal.setitimer(signal.ITIMER_PROF, options["seconds"])
    try:
        width, height, found = _KINDS[options["kind"]](data, options)
    except ValueError as error:
        sentence = str(error).encode("utf-8", "backslashreplace")
        answers.write(ANSWER.pack(time.process_time() - began, 0, 0, len(sentence)) + sentence)
    else:
        answers.write(ANSWER.pack(time.process_time() - began, width, height, 0))
        for piece in found:
            answers.write(piece)
    finally:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_PROF, 0)
    answers.flush()


def _picture(data: bytes, options: dict[str, Any]) -> tuple[int, int, list[bytes]]:
    image = decode_image(data, options["name"], options["max_pixels"], options["formats"])
    return image.width, image.height, [image.tobytes()]


def _mask(data: bytes, options: dict[str, Any]) -> tuple[int, int, list[bytes]]:
    image = decode_image(data, options["name"], options["max_pixels"], options["formats"], to_mask)
    return image.width, image.height, [image.convert("RGB").tobytes()]


def _look(data: bytes, options: dict[str, Any]) -> tuple[int, int, list[bytes]]:
    """What the header of a video says; the size is that of its first frame, as it is turned."""
    with VideoFile(data, options["max_frames"], options["max_pixels"]) as video:
        height, width, _ = next(video.frames([0])).shape
        return width, height, [LOOKED_AT.pack(video.num_frames, video.rate or 0.0)]


def _frames(data: bytes, options: dict[str, Any]) -> tuple[int, int, list[bytes]]:
    """Frames of a video that was looked at before."""
    with VideoFile(data, options["max_frames"], options["max_pixels"]) as video:
        frames = list(video.frames(options["indices"]))
    if len({frame.shape for frame in frames}) != 1:
        raise ValueError("The frames of the video sent differ in size; save it anew.")
    height, width, _ = frames[0].shape
    return width, height, [frame.tobytes() for frame in frames]


_KINDS = {"picture": _picture, "mask": _mask, "look": _look, "frames": _frames}


if __name__ == "__main__":
    main()
