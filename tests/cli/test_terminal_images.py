"""What is written into terminals that can show pictures."""

import base64
import io

import pytest
from PIL import Image

from helpers import picture
from wallaroo_hf.cli.terminal_images import Protocol, detect_protocol, show_image


class _Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, Protocol.KITTY),
        ({"TERM_PROGRAM": "ghostty"}, Protocol.KITTY),
        ({"TERM_PROGRAM": "iTerm.app"}, Protocol.ITERM2),
        ({"TERM_PROGRAM": "WezTerm"}, Protocol.ITERM2),
        ({"TERM": "xterm-256color"}, Protocol.FILES),
        ({"TERM": "screen-256color", "TERM_PROGRAM": "iTerm.app"}, Protocol.FILES),
        ({"TERM": "xterm-kitty", "TMUX": "1"}, Protocol.FILES),
    ],
)
def test_detection(environment, protocol):
    assert detect_protocol(_Terminal(), environment) is protocol
    assert detect_protocol(io.StringIO(), environment) is Protocol.FILES  # a pipe


def test_kitty_gets_the_png_in_chunks():
    stream = _Terminal()
    show_image(picture(1, 300, 200), stream, Protocol.KITTY)
    parts = [part for part in stream.getvalue().strip().split("\x1b\\") if part]
    controls, chunks = zip(*(part.removeprefix("\x1b_G").split(";") for part in parts), strict=True)
    assert controls[0] == "a=T,f=100,q=2,m=1" and set(controls[1:-1]) == {"m=1"} and controls[-1] == "m=0"
    assert all(len(chunk) <= 4096 for chunk in chunks)
    shown = Image.open(io.BytesIO(base64.b64decode("".join(chunks))))
    assert shown.tobytes() == picture(1, 300, 200).tobytes()


def test_iterm2_gets_the_png_and_small_ones_are_enlarged():
    stream = _Terminal()
    show_image(picture(1, 96, 96), stream, Protocol.ITERM2)
    header, _, data = stream.getvalue().strip().removesuffix("\x07").partition(":")
    shown = base64.b64decode(data)
    assert header.startswith("\x1b]1337;File=inline=1") and f"size={len(shown)};" in header
    assert Image.open(io.BytesIO(shown)).size == (480, 480)


def test_files_write_nothing():
    stream = _Terminal()
    show_image(picture(1), stream, Protocol.FILES)
    assert stream.getvalue() == ""
