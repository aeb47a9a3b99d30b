"""`wallaroo chat`: a conversation in the terminal, with pictures. torch is imported when the command runs."""

import contextlib
import secrets
import shlex
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..families.abilities import VIDEO
from ..files.whole import require_folder
from .given import frames_in, is_folder, names_a_picture, shown
from .options import BUILT_IN, CheckWeights, Device, Guidance, GuidanceMinP, Model, quiet

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..conversation import Conversation
    from .terminal_images import Protocol

HELP = """Say anything, in English or Chinese; what was drawn last is what the next words may change.
  /image PATH   show a picture with the next message
  /video PATH   show a video: a file, or a folder of frames
  /new          start over
  /help         this
  /quit         leave (so does Ctrl-D)"""


class Show(StrEnum):
    """How pictures are shown."""

    AUTO = "auto"
    KITTY = "kitty"
    ITERM2 = "iterm2"
    FILES = "files"


def chat(
    model: Model = BUILT_IN,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pictures.")] = Path("."),
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**62, help="Answer k gets seed + k. Default: a random one.")
    ] = None,
    show: Annotated[
        Show,
        typer.Option(help="How to show pictures: kitty or iterm2 protocol, or files only. auto asks the terminal."),
    ] = Show.AUTO,
    height: Annotated[int | None, typer.Option(help="Height of what is drawn, in pixels.")] = None,
    width: Annotated[int | None, typer.Option(help="Width of what is drawn, in pixels.")] = None,
    aspect_ratio: Annotated[str | None, typer.Option(help="Width to height, e.g. 16:9; picks a listed size.")] = None,
    guidance_scale: Guidance = None,
    guidance_min_p: GuidanceMinP = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in text tokens.")] = 512,
    device: Device = None,
    dtype: Annotated[str, typer.Option(help="Precision of the weights: auto, bfloat16, float16 or float32.")] = "auto",
    check_weights: CheckWeights = True,
) -> None:
    """Talk with the model: it answers and draws as it sees fit, over as many turns as you like."""
    require_folder(output)
    from ..conversation import Conversation
    from .running import load_checkpoint
    from .terminal_images import Protocol, detect_protocol

    quiet()
    checkpoint = load_checkpoint(model, device, dtype, check_weights)
    size = {"height": height, "width": width, "aspect_ratio": aspect_ratio}
    first_seed = secrets.randbelow(2**31) if seed is None else seed
    protocol = detect_protocol(sys.stdout) if show is Show.AUTO else Protocol(show.value)

    def start(seed: int) -> Conversation:
        given = {name: value for name, value in size.items() if value is not None}
        return Conversation(
            checkpoint.model, checkpoint.processor, seed, max_new_tokens, given, guidance_scale, guidance_min_p
        )

    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  line editing and history for input()
        typer.echo(HELP)
    abilities = checkpoint.abilities
    if abilities.draws and not abilities.draws_in_chats:
        typer.echo(f"This {abilities.family} checkpoint answers in a chat; pictures are drawn by `wallaroo generate`.")
    _Loop(start(first_seed), start, output, protocol, checkpoint.name).run()


class _Loop:
    """Reads what the user types until there is no more."""

    def __init__(
        self, conversation: "Conversation", start: Any, output: Path, protocol: "Protocol", model: str
    ) -> None:
        self.conversation, self.start, self.output = conversation, start, output
        self.protocol, self.model = protocol, model
        self.shown: list[Image] = []
        self.videos: list[Any] = []

    def run(self) -> None:
        while True:
            try:
                line = input("> " if sys.stdin.isatty() else "").strip()
            except EOFError:
                return
            try:
                if line in ("/quit", "/exit"):
                    return
                if line:
                    self._take(line)
            except ValueError as error:  # what was typed cannot be done; the chat goes on
                typer.echo(f"Error: {error}", err=True)
            except KeyboardInterrupt:
                typer.echo("Stopped; the chat is as it was.", err=True)

    def _take(self, line: str) -> None:
        from ..pictures.opening import open_image

        if line == "/help":
            typer.echo(HELP)
        elif line == "/new":
            self.conversation, self.shown, self.videos = self.start(self.conversation.seed), [], []
        elif line.split()[0] == "/image":
            words = shlex.split(line)[1:]
            if not words:
                raise ValueError("Which picture? Give its path: /image PATH")
            self.shown.append(open_image(" ".join(words)))
        elif line.split()[0] == "/video":
            path = " ".join(shlex.split(line)[1:])
            if not path:
                raise ValueError("Which video? Give its path: /video PATH")
            self.conversation.abilities.check_answers({}, videos=True)
            for notice in self.conversation.abilities.notices(tasks=[VIDEO]):
                typer.echo(f"Note: {notice}", err=True)
            self.videos.append(frames_in(path) if is_folder(path) else path)
        elif names_a_picture(line):
            raise ValueError(f"{shown(line)} is a picture; show it with: /image {line}")
        elif line.startswith("/"):
            raise ValueError(f"There is no command '{line.split()[0]}'; /help lists them.")
        else:
            self._say(line)

    def _say(self, text: str) -> None:
        from ..files.saved_pictures import save_png, slug
        from .terminal_images import show_image

        seed = self.conversation.seed

        def row(preview: "Callable[[], Image | None]", rows: int, of: int) -> None:
            image = preview() if rows == of else None
            if image is not None:  # whole: shown where it stands in the answer
                path = save_png(image, self.output / f"{slug(text)}-{seed}.png", text, seed, {"model": self.model})
                show_image(image, sys.stdout, self.protocol)
                typer.echo(f"[{path}]")

        videos, self.videos = self.videos, []  # one that cannot be read is not shown again
        self.conversation.say(
            text, self.shown, on_text=lambda piece: typer.echo(piece, nl=False), on_row=row, videos=videos
        )
        typer.echo()
        self.shown = []
