"""What the routes share: the model, its queue, and how a request's work is begun, watched and given up."""

import asyncio
import contextlib
import copy
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from PIL import Image
from starlette.requests import Request

from ..layout.grid import check_size
from ..processing.drawing_requests import DrawingRequest, pick_size
from ..processing.refused_words import refuse_special_tokens, refused_tokens
from .batching import Batcher, Job, events
from .engine import Engine
from .errors import ApiError, client_gone, timed_out
from .guard import CLIENT
from .images import ImageReader
from .metrics import Metrics
from .requests import Answer, Drawing, DrawingSettings, Ending, Picture
from .schemas import ChatBody, ImageOptions, parse_size
from .server_settings import ServerSettings


class Service:
    """A model that is served.

    Args:
        model, processor: a loaded checkpoint, on its device.
        settings: limits and options.
        reader: opens images; made from the settings where none is given.
    """

    def __init__(
        self, model: Any, processor: Any, settings: ServerSettings, reader: ImageReader | None = None
    ) -> None:
        self.settings = settings
        self.created = int(time.time())
        self.config = model.config
        self.processor = copy.deepcopy(processor)  # tokenizers must not be shared between threads
        self.special_tokens = refused_tokens(self.processor.tokenizer)
        self.preparing = asyncio.Lock()  # of whoever uses the copy
        self.engine = Engine(model, processor, settings.window)
        self.batcher = Batcher(
            self.engine.run,
            settings.max_batch,
            settings.max_wait,
            settings.max_queue,
            settings.max_queue_bytes,
            self._count_batch,
        )
        self.images = reader or ImageReader(settings)
        self.metrics = Metrics(lambda: self.batcher.num_waiting, lambda: len(self.batcher.running))

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
            text.encode()
            refuse_special_tokens(what, text, self.special_tokens)
        except UnicodeEncodeError as error:
            raise ApiError(
                400, f"The {what} holds half of a character ({error.reason}); send text.", param, "invalid_value"
            ) from error
        except ValueError as error:
            raise ApiError(400, str(error), param, "invalid_value") from error

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
            ApiError: 400 if what was asked for cannot be read, or the image would be too large.
        """
        param = "size" if options.aspect_ratio is None else "aspect_ratio"
        try:
            height, width = pick_size(self.processor.buckets, **size_options(options), like=like)
        except ValueError as error:
            raise ApiError(400, str(error), param, "invalid_size") from error
        self.check_pixels(height, width, param)
        return height, width

    def check_pixels(self, height: int, width: int, param: str) -> None:
        """Refuses images that are too large.

        Raises:
            ApiError: 400.
        """
        if height * width > self.settings.max_output_pixels:
            raise ApiError(
                400,
                f"The image would have {width}x{height} pixels, but may have {self.settings.max_output_pixels}; ask for a "
                "smaller `size`.",
                param,
                "invalid_size",
            )

    def drawings(
        self, options: ImageOptions | ChatBody, prompt: str, source: Image.Image | None, previews: int = 0
    ) -> list[Job]:
        """Jobs for the images that a request asks for, after all checks that need no model.

        Raises:
            ApiError: 400, so that nothing that cannot be drawn from enters the queue.
        """
        self.check_count(options.n)
        self.check_text("prompt", prompt, "prompt", self.settings.max_prompt_chars)
        self.check_text("negative prompt", options.negative_prompt, "negative_prompt", self.settings.max_prompt_chars)
        if source is not None and not self.processor.has_editing:
            raise ApiError(
                400, "This checkpoint was not trained to edit images; leave the image out.", "image", "invalid_value"
            )
        size = self.size(options, source)
        try:
            DrawingRequest.from_text(prompt, source, None, size, options.negative_prompt, self.special_tokens)
            rows, cols = check_size(*size, self.processor.image_token_size, not self.processor.line_breaks)
        except ValueError as error:
            param = "prompt" if not prompt.strip() else "size" if options.aspect_ratio is None else "aspect_ratio"
            raise ApiError(400, str(error), param, "invalid_value") from error
        if (rows + 1) * (cols + 1) > self.config.text_config.max_position_embeddings:
            raise ApiError(
                400,
                f"`size` is {options.size}, which is {rows}x{cols} codes, but the model has only "
                f"{self.config.text_config.max_position_embeddings} positions; ask for a smaller image.",
                "size",
                "invalid_size",
            )
        settings = DrawingSettings(
            size,
            fits_source=source is not None and options.size == "auto" and options.aspect_ratio is None,
            guidance_scale=options.guidance_scale,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            guidance_min_p=options.guidance_min_p,
        )
        seed = first_seed(options.seed)
        requests = [
            Drawing(prompt, seed + k, settings, source, options.negative_prompt, previews) for k in range(options.n)
        ]
        return make_jobs(requests, 0 if source is None else 3 * source.width * source.height)

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

    def _count_batch(self, jobs: Sequence[Job], seconds: float) -> None:
        task = jobs[0].group[0]  # type: ignore[index]  # groups are tuples that begin with the task
        self.metrics.batches.labels(task).observe(len(jobs))
        self.metrics.batch_seconds.labels(task).observe(seconds)

    def count(self, event: Any) -> None:
        """Counts what goes out."""
        if isinstance(event, Picture):
            self.metrics.images.inc()
        if isinstance(event, Ending):
            self.metrics.tokens.inc(event.num_new_tokens)


def size_options(options: ImageOptions | ChatBody) -> dict[str, Any]:
    """The size that a request asks for, as the processor's keywords.

    Raises:
        ValueError: if it cannot be read.
    """
    height, width = parse_size(options.size) or (None, None)
    return {"height": height, "width": width, "aspect_ratio": options.aspect_ratio}


def make_jobs(requests: Sequence[Drawing | Answer], num_bytes: int) -> list[Job]:
    """Jobs of one request, which hold `num_bytes` of memory together."""
    inbox: asyncio.Queue[Any] = asyncio.Queue()
    return [
        Job(item, item.group, inbox, getattr(item, "mode", None) == "auto", 0 if index else num_bytes)
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
