"""What the web page asks of the model: one thing at a time, followed while it is made, and stopped when asked to."""

import contextlib
import math
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..conversation import DEFAULT_PREFIX_CACHE, Conversation
from ..families.abilities import Abilities
from ..families.contract import DrawingModel, DrawingProcessor, TextSettings
from ..families.prefixes import MEBIBYTE, PrefixStore
from ..families.registry import abilities_of
from ..families.settings import Setting
from ..files.saved_pictures import save_png, slug
from ..pictures.opening import FORMATS, MAX_PIXELS, open_image
from ..pictures.videos import GivenFrames
from .app_news import Teller, all_news, latest_news
from .picture_decoders import Decoders
from .quiet_pipeline import QuietPipeline
from .seen_videos import VideoLimits, see_video
from .server_settings import ServerSettings

__all__ = ["Drawing", "Engine", "Settings", "on_canvas"]

_SECONDS_PER_PICTURE = 10.0  # of computing, to decode one that was uploaded
_PREVIEW_PAUSE = 0.12  # seconds between two looks at one image: decoding rows costs time


@dataclass(frozen=True)
class Settings:
    """What a drawing or an edit was asked for; None = the checkpoint's default.

    Attributes:
        prompt: what to draw, or to change.
        seed: of the first picture; the next one has the next seed.
        count: how many pictures.
        negative_prompt: what to steer away from.
        height, width: in pixels.
        sampling: settings of the checkpoint, by name.
        mask: of an edit, what of the picture is painted anew; None = all of it.
        outpaint: of an edit, by how many pixels the picture grows; see [`wallaroo_hf.pictures.masks.read_sides`].
    """

    prompt: str
    seed: int
    count: int = 1
    negative_prompt: str | None = None
    height: int | None = None
    width: int | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    mask: Image.Image | None = None
    outpaint: Mapping[str, int] | None = None


@dataclass
class Drawing:
    """How far a drawing is.

    Attributes:
        images: one per picture: what is there of it, or None before the first row or step.
        shown: rows (or steps) that each image has; they may be fewer than are drawn, because not every one is looked at.
        rows, of: rows (or steps) that the slowest picture has, and those of all.
        seconds: since it began.
        finished, stopped: whether it is over, and whether before its end.
        files: the saved pictures by their number, when it is over.
    """

    images: list[Image.Image | None]
    shown: list[int]
    rows: int = 0
    of: int = 1
    seconds: float = 0.0
    finished: bool = False
    stopped: bool = False
    files: dict[int, Path] = field(default_factory=dict)


class Engine:
    """A model behind a page. Requests of several people wait for one another.

    Args:
        model, processor: of one checkpoint.
        name: what the checkpoint is called, for the files' metadata.
        output: the folder that pictures are saved in.
    """

    def __init__(self, model: DrawingModel, processor: DrawingProcessor, name: str, output: Path) -> None:
        self.model, self.processor, self.name, self.output = model, processor, name, output
        self.abilities: Abilities = abilities_of(model, processor)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="wallaroo")
        self._decoders = Decoders(_SECONDS_PER_PICTURE)
        self._prefixes = PrefixStore(DEFAULT_PREFIX_CACHE * MEBIBYTE)  # of all chats together
        self._stops: dict[tuple[str, str], threading.Event] = {}  # by session and tab

    @property
    def sliders(self) -> list[Setting]:
        """The settings that the page offers: numbers between bounds, or with a sensible range, that do something.

        One whose default is its upper bound (a `top_p` of 1) is switched off.
        """
        return [
            setting
            for setting in self.abilities.settings
            if setting.is_number
            and setting.stage == "draw"
            and setting.default is not None
            and (setting.sensible is not None or None not in (setting.minimum, setting.maximum))
            and (setting.maximum is None or setting.default < setting.maximum)
        ]

    def offers(self, task: str) -> bool:
        """Whether the page offers a task of the checkpoint: one that it learned."""
        return task in self.abilities.tasks and task not in self.abilities.untrained

    def missing_rows(self, done: int, total: int) -> float:
        """How many times as high as its preview a picture is, of which so many rows (or steps) are done.

        Families that draw by steps show the whole picture from the first one on.
        """
        return total / done if self.abilities.progress_unit == "row" else 1.0

    def notices(self, settings: Settings) -> list[str]:
        """What somebody should know who asks for this: a sentence each."""
        return self.abilities.notices(settings.sampling, settings.prompt)

    def stop(self, session: str, tab: str) -> None:
        """Ends what a session is having made in a tab (`"draw"`, `"edit"`, `"ask"`, `"chat"`), after the row or word."""
        if (session, tab) in self._stops:
            self._stops[session, tab].set()

    def open(self, source: Any) -> Image.Image:
        """The picture in a file that somebody uploaded (decoded in a process that is ended if it takes too long), or given.

        Raises:
            ValueError: if it cannot be used.
        """
        if not isinstance(source, (str, Path)):
            return open_image(source)
        data = _uploaded(source, "image")
        return self._decoders.decode(data, f"'{Path(source).name[:100]}'", MAX_PIXELS, FORMATS)[0]

    def open_video(self, path: str | Path) -> GivenFrames:
        """What the model sees of an uploaded video, within the limits of a server.

        Raises:
            ValueError: if it cannot be used, or the checkpoint understands no videos.
        """
        self.abilities.check_answers({}, videos=True)
        limits = VideoLimits.of(ServerSettings())
        data = _uploaded(path, "video")
        return see_video(self._decoders, self.processor, data, limits, self.abilities.max_positions)[0]

    def open_mask(self, data: bytes) -> Image.Image:
        """A mask that was uploaded, decoded apart, of mode L: white where it is transparent; see
        [`wallaroo_hf.pictures.pixels.to_mask`].

        Args:
            data: of its file.

        Raises:
            ValueError: if it cannot be used.
        """
        return self._decoders.decode(data, "mask", MAX_PIXELS, FORMATS, is_mask=True)[0].convert("L")

    def draw(
        self, session: str, settings: Settings, source: Any = None, references: Sequence[Any] = ()
    ) -> Iterator[Drawing]:
        """Draws, or edits a `source` (a path or picture); yields after each new row, and at last with the files.

        Args:
            session: whose drawing it is.
            settings: how.
            source: what is edited.
            references: further pictures that the edit takes from, which are shown before it.

        Raises:
            ValueError: for settings or a source that will not do.
        """
        self.abilities.check_settings(settings.sampling)
        shown = [] if source is None else [self.open(one) for one in (*references, source)]
        state = Drawing([None] * settings.count, [0] * settings.count)
        rows = [0] * settings.count
        looked = [-math.inf] * settings.count
        began = time.monotonic()

        def follow(pipe: Any, step: int, num_steps: int, details: dict[str, Any]) -> bool:
            image = details["image"]
            rows[image], state.of = step + 1, num_steps
            if time.monotonic() - looked[image] > _PREVIEW_PAUSE or step + 1 == num_steps:
                state.images[image], state.shown[image] = details["preview"](), step + 1
                looked[image] = time.monotonic()
            state.rows, state.seconds = min(rows), time.monotonic() - began
            news.put(replace(state, images=list(state.images), shown=list(state.shown)))
            return step + 1 == num_steps or not stop.is_set()  # what is whole was not stopped

        news: queue.SimpleQueue[Drawing] = queue.SimpleQueue()
        with self._stoppable(session, "draw" if source is None else "edit") as stop:
            future = self._worker.submit(self._pipeline_call, settings, shown, follow)
            yield from latest_news(news, future)
        output = future.result()
        images = list(output.images)
        yield Drawing(
            images,
            rows,
            state.rows,
            state.of,
            time.monotonic() - began,
            finished=True,
            stopped=not output.complete,
            files={
                index: self._save(image, settings, index, not output.complete)
                for index, image in enumerate(images)
                if image is not None
            },
        )

    def ask(self, session: str, image: Any, question: str, video: str | Path | None = None) -> Iterator[str]:
        """Answers a question about a picture (a path or picture; None = without one); yields the answer so far.

        Args:
            session: who asks.
            image: the picture.
            question: about it.
            video: the file of one that is asked about, too.

        Raises:
            ValueError: for a picture, a video or a question that will not do.
        """
        if not question.strip():
            raise ValueError("The question is empty; ask something.")
        shown = {"image": [] if image is None else [self.open(image)]}
        shown["video"] = [] if video is None else [self.open_video(video)]
        news: queue.SimpleQueue[str] = queue.SimpleQueue()
        said = ""
        with self._stoppable(session, "ask") as stop:
            future = self._worker.submit(self._answer, shown, question, Teller(self.processor, news, stop))
            for bit in all_news(news, future):
                said += bit
                yield said
        future.result()
        yield said.strip()

    def say(
        self,
        session: str,
        conversation: Conversation,
        text: str,
        images: Sequence[Any],
        videos: Sequence[str | Path] = (),
    ) -> Iterator[list[str | Image.Image]]:
        """The next answer of a chat; yields its pieces so far. The last one may be a picture of which rows are missing.

        Args:
            session: whose chat it is.
            conversation: the chat.
            text: what is said.
            images: shown with it: paths or pictures.
            videos: shown with it: files.

        Raises:
            ValueError: see [`Conversation.say`].
        """
        opened, clips = [self.open(image) for image in images], [self.open_video(video) for video in videos]
        pieces: list[str | Image.Image] = []
        news: queue.SimpleQueue[list[str | Image.Image]] = queue.SimpleQueue()
        drawing = False

        def on_text(bit: str) -> bool:
            if pieces and isinstance(pieces[-1], str):
                pieces[-1] += bit
            else:
                pieces.append(bit)
            news.put(list(pieces))
            return not stop.is_set()

        def on_row(preview: Callable[[], Image.Image | None], rows: int, of: int) -> bool:
            nonlocal drawing
            image = preview()
            if image is not None:
                pieces[len(pieces) - drawing :] = [on_canvas(image, self.missing_rows(rows, of))]
                drawing = rows < of
                news.put(list(pieces))
            return not stop.is_set()

        with self._stoppable(session, "chat") as stop:
            future = self._worker.submit(conversation.say, text, opened, on_text, on_row, clips)
            yield from latest_news(news, future)
        yield future.result()

    def conversation(self, seed: int) -> Conversation:
        """A new chat."""
        return Conversation(self.model, self.processor, seed, prefix_cache=self._prefixes.of(uuid.uuid4().hex))

    def save(self, image: Image.Image, prompt: str, seed: int, partial: bool) -> Path:
        """Saves a picture that a chat drew, or what is there of it.

        Args:
            image: the picture.
            prompt, seed: what it was drawn from.
            partial: whether something of it is missing.
        """
        return save_png(image, self._path(prompt, seed, partial), prompt, seed, {"model": self.name})

    @contextlib.contextmanager
    def _stoppable(self, session: str, tab: str) -> Iterator[threading.Event]:
        """The event that stops what a session asks for now in a tab; set at the end, for the page may have been closed."""
        own = self._stops[session, tab] = threading.Event()
        try:
            yield own
        finally:
            own.set()
            if self._stops.get((session, tab)) is own:
                del self._stops[session, tab]

    def _pipeline_call(self, settings: Settings, shown: list[Image.Image], follow: Callable[..., bool]) -> Any:
        pipe = QuietPipeline(model=self.model, processor=self.processor, device=self.model.device)
        return pipe(
            settings.prompt,
            image=[shown] if shown else None,
            mask_image=settings.mask,
            outpaint=settings.outpaint,
            negative_prompt=settings.negative_prompt or None,
            height=settings.height,
            width=settings.width,
            num_images_per_prompt=settings.count,
            generator=[torch.Generator().manual_seed(settings.seed + index) for index in range(settings.count)],
            callback_on_step_end=follow,
            **settings.sampling,
        )

    def _path(self, prompt: str, seed: int, partial: bool) -> Path:
        """As `wallaroo generate` calls its files."""
        return self.output / f"{slug(prompt)}-{seed}{'-partial' if partial else ''}.png"

    def _save(self, image: Image.Image, settings: Settings, index: int, partial: bool) -> Path:
        seed = settings.seed + index
        about = {key: getattr(settings, key) for key in ("negative_prompt", "height", "width")}
        about |= {slider.name: settings.sampling.get(slider.name) for slider in self.sliders} | dict(settings.sampling)
        about |= {"mask": "painted by hand"} if settings.mask is not None else {}
        about |= {"outpaint": dict(settings.outpaint)} if settings.outpaint else {}
        path = self._path(settings.prompt, seed, partial)
        return save_png(image, path, settings.prompt, seed, {"model": self.name, **about})

    def _answer(self, shown: dict[str, list[Any]], question: str, teller: Teller) -> None:
        content = [{"type": kind} for kind, given in shown.items() for _ in given]
        content.append({"type": "text", "text": question})
        chat = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        given = {f"{kind}s": given for kind, given in shown.items() if given}
        inputs = self.processor(text=[chat], **given, return_tensors="pt")
        self.model.converse(
            inputs.to(self.model.device, dtype=self.model.dtype),
            mode="text",
            follow=teller,
            generators=None,
            max_new_tokens=[512],
            text=TextSettings(),
            drawing={},
        )


def _uploaded(path: str | Path, kind: str) -> bytes:
    """A file that the page has.

    Raises:
        ValueError: if it is gone.
    """
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # the latter of a name that cannot be one
        raise ValueError(f"The {kind} '{Path(path).name[:100]}' is not there any more; upload it again.") from error


def on_canvas(image: Image.Image, factor: float) -> Image.Image:
    """The first rows of a picture on a canvas of its whole height, which is `factor` times theirs."""
    height = round(image.height * factor)
    if height <= image.height:
        return image
    canvas = Image.new("RGB", (image.width, height), (226, 232, 226))
    canvas.paste(image, (0, 0))
    return canvas
