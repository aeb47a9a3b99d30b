"""Pictures in a terminal, by the protocols of kitty and iTerm2."""

import base64
import io
import os
from collections.abc import Mapping
from enum import StrEnum
from typing import TextIO

from PIL import Image

__all__ = ["Protocol", "detect_protocol", "show_image"]

_CHUNK = 4096  # kitty's limit
_SHOWN_SIDE = 480  # pixels; small pictures are enlarged by whole factors so that they can be seen


class Protocol(StrEnum):
    """How a terminal is told to show a picture."""

    KITTY = "kitty"
    ITERM2 = "iterm2"
    FILES = "files"


def detect_protocol(stream: TextIO, environment: Mapping[str, str] | None = None) -> Protocol:
    """What the terminal behind a stream understands, by what it says of itself; files where in doubt."""
    known = os.environ if environment is None else environment
    if not stream.isatty() or known.get("TMUX") or known.get("TERM", "").startswith(("screen", "tmux", "dumb")):
        return Protocol.FILES
    program = known.get("TERM_PROGRAM", "")
    if known.get("KITTY_WINDOW_ID") or known.get("TERM") in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
        return Protocol.KITTY
    if program in ("iTerm.app", "WezTerm", "mintty") or known.get("LC_TERMINAL") == "iTerm2":
        return Protocol.ITERM2
    return Protocol.FILES


def show_image(image: Image.Image, stream: TextIO, protocol: Protocol) -> None:
    """Writes a picture into a terminal; nothing where the protocol is files."""
    if protocol is Protocol.FILES:
        return
    factor = max(1, _SHOWN_SIDE // max(image.size))
    buffer = io.BytesIO()
    image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST).save(buffer, format="PNG")
    data = base64.standard_b64encode(buffer.getvalue()).decode("ascii")
    if protocol is Protocol.ITERM2:
        size = len(buffer.getvalue())
        stream.write(f"\x1b]1337;File=inline=1;size={size};preserveAspectRatio=1:{data}\x07\n")
    else:
        chunks = [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]
        for number, chunk in enumerate(chunks):
            more = int(number + 1 < len(chunks))
            control = f"a=T,f=100,q=2,m={more}" if number == 0 else f"m={more}"
            stream.write(f"\x1b_G{control};{chunk}\x1b\\")
        stream.write("\n")
    stream.flush()
