"""The process that decodes pictures for a server or page: files come in, pixels or a sentence go out.

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

READY = b"+"  # before everything else
REQUEST = struct.Struct(">IQ")  # lengths of the options (JSON) and of the file that follow
ANSWER = struct.Struct(
    ">dIII"
)  # seconds of computing; width and height of the RGB pixels that follow, or length of a sentence


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
        image = decode_image(data, options["name"], options["max_pixels"], options["formats"])
    except ValueError as error:
        sentence = str(error).encode("utf-8", "backslashreplace")
        answers.write(ANSWER.pack(time.process_time() - began, 0, 0, len(sentence)) + sentence)
    else:
        pixels = image.tobytes()
        answers.write(ANSWER.pack(time.process_time() - began, image.width, image.height, 0))
        answers.write(pixels)
    finally:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_PROF, 0)
    answers.flush()


if __name__ == "__main__":
    main()
