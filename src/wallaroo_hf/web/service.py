"""What the routes share: the model, its queue, and how a request's work is begun, watched and given up."""

import asyncio
import contextlib
import copy
import dataclasses
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from PIL import Image
from starlette.requests import Request

from ..families.abilities import EDITING, GENERATION
from ..families.contract import DrawingModel, DrawingProcessor
from ..families.prefixes import MEBIBYTE, PrefixStore
from ..families.sizes import SizeError
from ..pictures.masks import grow, open_mask, read_growth, read_sides
from .batching import Batcher, Job, events
from .engine import Engine
from .errors import ApiError, client_gone, timed_out
from .guard import CLIENT
from .images import ImageReader
from .metrics import Metrics
from .requests import Answer, Drawing, DrawingSettings, Ending, Picture, TextSettings
from .schemas import ChatBody, EditBody, GenerationBody, ImageOptions, parse_size, with_settings
from .server_settings import ServerSettings

_LEAST_PREFIX = 64  # tokens; all chats begin alike, and a batch reads so few sooner together than row by row
_OWN_SETTINGS = tuple(field.name for field in dataclasses.fields(ServerSettings))  # for all requests alike
TEXT_FIELDS = tuple(field.name for field in dataclasses.fields(TextSettings))  # of chats, for words


class Service:
    """A model that is served.

    Args:
        model, processor: a loaded checkpoint, on its device.
        settings: limits and options.
        reader: opens images; made from the settings where none is given.

    Raises:
        ValueError: for settings that the checkpoint cannot have.
    """

    def __init__(
        self,
        model: DrawingModel,
        processor: DrawingProcessor,
        settings: ServerSettings,
        reader: ImageReader | None = None,
    ) -> None:
        self.settings = settings
        self.created = int(time.time())
        self.processor = copy.deepcopy(processor)  # tokenizers must not be shared between threads
        self.preparing = asyncio.Lock()  # of whoever uses the copy
        self.prefixes = PrefixStore(settings.prefix_cache * MEBIBYTE, _LEAST_PREFIX)
        self.engine = Engine(
            model, processor, settings.window, settings.max_batch, self._count_step, prefixes=self.prefixes
        )
        self.abilities = self.engine.abilities
        self.generation_body = with_settings(GenerationBody, self.abilities, _OWN_SETTINGS)
        self.edit_body = with_settings(EditBody, self.abilities, _OWN_SETTINGS)
        self.chat_body = with_settings(ChatBody, self.abilities, _OWN_SETTINGS)
        self.batcher = Batcher(
            self.engine,
            settings.max_batch,
            settings.max_wait,
            settings.max_queue,
            settings.max_queue_bytes,
            self._count_begun,
            self._count_over,
        )
        self.images = reader or ImageReader(settings)
        self.metrics = Metrics(lambda: self.batcher.num_waiting, lambda: len(self.batcher.running), self.prefixes)

    def check_model(self, name: str | None) -> None:
        """Refuses requests for another model.

        Raises:
            ApiError: 404.
        """
        if name not in (None, self.settings.name):
            raise ApiError(
                404,
                f"The model '{str(name)[:100]}' is not served here; this server has '{self.settings.name}'.",
                "model",
                "model_not_found",
            )

    def check_text(self, what: str, text: str, param: str, max_chars: int) -> None:
        """Refuses text that is too long, no Unicode, or would end the turn that it is put in.

        Args:
            what: what it is called in the message.
            text: what a user says.
            param: the field that it came in.
            max_chars: its longest.

        Raises:
            ApiError: 400.
        """
        if len(text) > max_chars:
            raise ApiError(
                400,
                f"The {what} has {len(text)} characters, but may have {max_chars}; shorten it.",
                param,
                "string_above_max_length",
            )
        try:
            self.abilities.check_words(text, what)
        except ValueError as error:
            raise ApiError(400, str(error), param, "invalid_value") from error

    def check_task(self, task: str, refusal: str, param: str | None) -> None:
        """Refuses what the checkpoint cannot do.

        Args:
            task: of [`wallaroo_hf.families.abilities.Abilities.tasks`].
            refusal: what to say of this checkpoint, and what to do.
            param: the field that asks for it.

        Raises:
            ApiError: 400.
        """
        if task not in self.abilities.tasks:
            raise ApiError(400, f"This checkpoint {refusal}.", param, "invalid_value")

    def check_count(self, n: int) -> None:
        """Refuses requests for more images or answers than one may ask for, or than the queue can hold.

        Raises:
            ApiError: 400.
        """
        most = min(self.settings.max_n, self.settings.max_queue)
        if n > most:
            raise ApiError(400, f"`n` is {n}, but may be {most} at most; send several requests.", "n", "invalid_value")

    def size(self, options: ImageOptions | ChatBody, like: Image.Image | None = None) -> tuple[int, int]:
        """The `(height, width)` to draw.

        Args:
            options: what was asked for.
            like: the image to edit, whose shape it has if nothing was asked for.

        Raises:
            ApiError: 400 if what was asked for cannot be read or drawn, or the image would be too large.
        """
        param = "size" if options.aspect_ratio is None else "aspect_ratio"
        try:
            height, width = self.abilities.pick_size(**size_options(options), like=like)
        except ValueError as error:
            raise ApiError(400, str(error), param, "invalid_size") from error
        self.check_pixels(height, width, param)
        try:
            self.abilities.check_size(height, width)
        except ValueError as error:
            message = str(error)
            if isinstance(error, SizeError) and options.size != "auto":
                message = (
                    f"`size` is '{options.size}' (width x height in pixels), but {error.reason}; {self._listed()}."
                )
            raise ApiError(400, message, param, "invalid_value") from error
        return height, width

    def _listed(self, what: str = "") -> str:
        """What to ask for: the checkpoint's sizes, as requests write them."""
        fitting = [one for one in self.abilities.sizes if one[0] * one[1] <= self.settings.max_output_pixels]
        listed = " or ".join(f"{width}x{height}" for height, width in fitting)
        return f"ask for {what}{listed}" if listed else "ask for a smaller `size`"

    def check_pixels(self, height: int, width: int, param: str) -> None:
        """Refuses images that are too large.

        Raises:
            ApiError: 400.
        """
        if height * width > self.settings.max_output_pixels:
            raise ApiError(
                400,
                f"The image would have {width}x{height} pixels, but may have {self.settings.max_output_pixels}; "
                f"{self._listed('a smaller `size`, such as ')}.",
                param,
                "invalid_size",
            )

    def drawings(
        self,
        options: ImageOptions | ChatBody,
        prompt: str,
        sources: Sequence[Image.Image],
        previews: int = 0,
        mask: Image.Image | None = None,
        outpaint: Any = None,
    ) -> list[Job]:
        """Jobs for the images that a request asks for, after all checks that need no model.

        Args:
            options: what was asked for.
            prompt: what to draw, or how to edit.
            sources: the images to edit, of which the last one is changed; none = it is drawn from words alone.
            previews: most unfinished states of each image that are reported.
            mask: what of the source is painted anew, or None.
            outpaint: by how many pixels the source grows, see [`wallaroo_hf.pictures.masks.read_sides`], or as text; None =
                not at all.

        Raises:
            ApiError: 400, so that nothing that cannot be drawn from enters the queue.
        """
        self.check_count(options.n)
        self.check_task(GENERATION, "does not draw; ask it questions at /v1/chat/completions", None)
        self.check_text("prompt", prompt, "prompt", self.settings.max_prompt_chars)
        self.check_negative_prompt(options.negative_prompt)
        if sources:
            self.check_task(EDITING, "was not trained to edit images; leave the image out", "image")
        source = self._source(options, sources, mask)
        given = {name: getattr(options, name, None) for name in TEXT_FIELDS} | options.given()
        if source is not None:
            source, mask = self._area(source, mask, outpaint, given)
        size = self.size(options, source)
        try:
            self.abilities.check_prompt(prompt)
        except ValueError as error:
            raise ApiError(400, str(error), "prompt", "invalid_value") from error
        settings = DrawingSettings(
            size,
            fits_source=source is not None and options.size == "auto" and options.aspect_ratio is None,
            values=tuple(sorted(self.check_settings(given).items())),
        )
        seed = first_seed(options.seed)
        requests = [
            Drawing(prompt, seed + k, settings, source, mask, options.negative_prompt, previews, tuple(sources[:-1]))
            for k in range(options.n)
        ]
        shown = [*sources[:-1], *(() if source is None else (source,))]
        return make_jobs(requests, sum(3 * one.width * one.height for one in shown))

    def _source(
        self, options: ImageOptions | ChatBody, sources: Sequence[Image.Image], mask: Image.Image | None
    ) -> Image.Image | None:
        """The one of an edit's images that is changed; None where there is none.

        Raises:
            ApiError: 400 for more than the checkpoint takes, or a mask that could be of more than one.
        """
        try:
            self.abilities.check_sources(len(sources), self.size(options, sources[-1] if sources else None))
        except ValueError as error:
            raise ApiError(400, str(error), "image", "invalid_value") from error
        if len(sources) > 1 and mask is not None:
            raise ApiError(
                400,
                f"{len(sources)} images were given with a `mask`, but OpenAI's masks are of the first image, and here the "
                "last one is changed; send the image that the mask is of alone.",
                "mask",
                "invalid_value",
            )
        return sources[-1] if sources else None

    def _area(
        self, source: Image.Image, mask: Image.Image | None, outpaint: Any, given: Mapping[str, Any]
    ) -> tuple[Image.Image, Image.Image | None]:
        """What is edited, grown where it shall be, and what of it is painted anew; None = all.

        Raises:
            ApiError: 400 for what cannot be, or a checkpoint that edits pictures as a whole.
        """
        if mask is None and outpaint is None:
            return source, None
        param = "mask" if outpaint is None else "outpaint"
        try:
            self.abilities.check_inpainting(given)
            if mask is not None and outpaint is not None:
                raise ValueError("Both `mask` and `outpaint` were given; give one, as what is outpainted is the mask.")
            if mask is not None:
                return source, open_mask(mask, source)
            sides = read_sides(read_growth(outpaint, "`outpaint`") if isinstance(outpaint, str) else outpaint)
            return grow(source, sides, self.settings.max_image_pixels)
        except ValueError as error:
            raise ApiError(400, str(error), param, "invalid_value") from error

    def check_negative_prompt(self, words: str) -> None:
        """Refuses a negative prompt that cannot be steered away from.

        Raises:
            ApiError: 400.
        """
        self.check_text("negative prompt", words, "negative_prompt", self.settings.max_prompt_chars)
        if words and not self.abilities.negative_prompt:
            family = self.abilities.family
            raise ApiError(
                400,
                f"This {family} checkpoint takes no negative prompt; leave it out.",
                "negative_prompt",
                "invalid_value",
            )

    def check_settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of drawings that were given, without what is None.

        Raises:
            ApiError: 400 for one that the checkpoint lacks, or that cannot be.
        """
        checked: dict[str, Any] = {}
        for name, value in given.items():
            try:
                checked |= self.abilities.check_settings({name: value})
            except ValueError as error:
                raise ApiError(400, str(error), name, "invalid_value") from error
        return checked

    def notices(self, jobs: Sequence[Job]) -> dict[str, list[str]]:
        """What whoever asked for drawings should know of them: the field `notices` of an answer, or none."""
        first = jobs[0].request
        given, prompt = (
            (dict(first.settings.values), first.prompt) if isinstance(first, Drawing) else (first.drawing, "")
        )
        notices = self.abilities.notices(given, prompt, first.tasks)
        return {"notices": notices} if notices else {}

    @contextlib.asynccontextmanager
    async def working(self, request: Request, jobs: Sequence[Job]) -> AsyncIterator[AsyncIterator[tuple[int, Any]]]:
        """Queues jobs and gives their events; gives them up when the client goes, time is over or the block ends.

        Raises:
            ApiError: 429 or 503 if they cannot be queued.
        """
        for job in jobs:
            job.client = client_of(request)
        self.batcher.submit(jobs)
        watcher = asyncio.create_task(self._watch(request, jobs))
        try:
            yield events(jobs)
        finally:
            watcher.cancel()
            self._give_up(jobs, client_gone())

    async def _watch(self, request: Request, jobs: Sequence[Job]) -> None:
        try:
            await asyncio.wait_for(_disconnected(request), self.settings.timeout)
        except TimeoutError:
            self._give_up(jobs, timed_out(self.settings.timeout))
        else:
            self._give_up(jobs, client_gone())

    def _give_up(self, jobs: Sequence[Job], error: ApiError) -> None:
        for job in jobs:
            if not job.over:
                self.metrics.cancelled.labels(error.code).inc()
                job.cancel(error)

    def _count_begun(self, jobs: Sequence[Job], others: int) -> None:
        tasks = [job.request.task for job in jobs]
        for task in set(tasks):
            self.metrics.batches.labels(task).observe(tasks.count(task))
        for job, task in zip(jobs, tasks, strict=True):
            self.metrics.wait_seconds.labels(task).observe(job.begun - job.arrived)
            if others:
                self.metrics.joined.labels(task).inc()

    def _count_over(self, job: Job, seconds: float) -> None:
        self.metrics.batch_seconds.labels(job.request.task).observe(seconds)

    def _count_step(self, lane: str, rows: int) -> None:
        self.metrics.step_rows.labels(lane).observe(rows)

    def count(self, event: Any) -> None:
        """Counts what goes out."""
        if isinstance(event, Picture):
            self.metrics.images.inc()
        if isinstance(event, Ending):
            self.metrics.tokens.inc(event.num_new_tokens)


def size_options(options: ImageOptions | ChatBody) -> dict[str, Any]:
    """The size that a request asks for, as the keywords of `Abilities.pick_size`.

    Raises:
        ValueError: if it cannot be read.
    """
    height, width = parse_size(options.size) or (None, None)
    return {"height": height, "width": width, "aspect_ratio": options.aspect_ratio}


def make_jobs(requests: Sequence[Drawing | Answer], num_bytes: int) -> list[Job]:
    """Jobs of one request, which hold `num_bytes` of memory together."""
    inbox: asyncio.Queue[Any] = asyncio.Queue()
    return [
        Job(
            item,
            item.group,
            inbox,
            alone=getattr(item, "mode", None) == "auto",
            num_bytes=0 if index else num_bytes,
            lane=item.lane,
        )
        for index, item in enumerate(requests)
    ]


def first_seed(seed: int | None) -> int:
    """The seed that was asked for, or a random one."""
    return secrets.randbelow(2**31) if seed is None else seed


def client_of(request: Request) -> str:
    """Who asks, as the guard found; clients take turns."""
    return str(request.scope["state"][CLIENT])


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
