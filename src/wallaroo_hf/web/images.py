"""Images in requests and answers: uploads, data: URIs and listed URLs in; PNG, JPEG or WEBP out."""

import asyncio
import base64
import functools
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from PIL import Image

from ..pictures.opening import read_data_url
from .errors import ApiError
from .fetching import UrlFetcher
from .picture_decoders import Decoders
from .server_settings import ServerSettings
from .turns import Turns

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
_DECODED_AT_ONCE = 6  # each may take what `max_image_pixels` take
_FETCHED_AT_ONCE = 4
_CHATS_AT_ONCE = 2  # of which the images are open
_MIME = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}

T = TypeVar("T")


class ImageReader:
    """Opens images of requests within the server's limits, off the event loop. Clients take turns.

    Args:
        settings: limits, and hosts that may be fetched from.
        fetcher: for URLs; made from the settings where none is given.
    """

    def __init__(self, settings: ServerSettings, fetcher: UrlFetcher | None = None) -> None:
        self.settings = settings
        if fetcher is None and settings.url_hosts:
            fetcher = UrlFetcher(settings.url_hosts, settings.max_image_bytes, settings.url_timeout)
        self.fetcher = fetcher
        self.decoders = Decoders(settings.image_timeout)
        self.decoding = Turns(_DECODED_AT_ONCE, settings.timeout)
        self.fetching = Turns(_FETCHED_AT_ONCE, settings.timeout)
        self.chats = Turns(_CHATS_AT_ONCE, settings.timeout)
        self._threads = ThreadPoolExecutor(_DECODED_AT_ONCE + _FETCHED_AT_ONCE, thread_name_prefix="wallaroo-images")

    def start(self) -> None:
        """Makes ready, so that the first image does not wait."""
        self.decoders.start()

    def close(self) -> None:
        """Ends the processes that decode."""
        self.decoders.close()

    def of(self, client: str) -> "RequestImages":
        """The images of one request."""
        return RequestImages(self, client)

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Calls a function in a thread of the reader's own, so that slow images and URLs hold nobody else's."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, functools.partial(function, *args))


class RequestImages:
    """The images of one request, which share the seconds of computing that one image may take.

    Args:
        reader: opens them.
        client: who sent them.
    """

    def __init__(self, reader: ImageReader, client: str) -> None:
        self.reader, self.settings, self.client = reader, reader.settings, client
        self._seconds = reader.settings.image_timeout

    async def open_bytes(self, data: bytes, param: str, is_mask: bool = False) -> Image.Image:
        """The picture in a file, or the mask.

        Raises:
            ApiError: 413 if the file is too large, 400 if it cannot be used or takes too long.
        """
        if len(data) > self.settings.max_image_bytes:
            raise ApiError(
                413,
                f"The image has {len(data)} bytes, but may have {self.settings.max_image_bytes}; send a smaller one.",
                param,
                "image_too_large",
            )
        decode, most = self.reader.decoders.decode, self.settings.max_image_pixels
        async with self.reader.decoding.place(self.client):
            try:
                image, seconds = await self.reader.run(decode, data, "sent", most, _FORMATS, self._seconds, is_mask)
            except ValueError as error:
                raise ApiError(400, str(error), param, "invalid_image") from error
        self._seconds -= seconds
        return image

    async def open_url(self, url: str, param: str, is_mask: bool = False) -> Image.Image:
        """The picture (or mask) behind a data: URI, or behind a URL where URLs are allowed.

        Raises:
            ApiError: 400 or 413 if it must not or cannot be used.
        """
        if url[:5].lower() == "data:":
            return await self.open_bytes(self._read_data_uri(url, param), param, is_mask)
        if self.reader.fetcher is None:
            raise ApiError(
                400,
                "The image is no data: URI, and this server fetches no URLs and reads no paths; send the image itself as "
                "'data:image/png;base64,...'.",
                param,
                "url_not_allowed",
            )
        async with self.reader.fetching.place(self.client):
            try:
                data = await self.reader.run(self.reader.fetcher.fetch, url)
            except ValueError as error:
                raise ApiError(400, str(error), param, "url_not_allowed") from error
        return await self.open_bytes(data, param, is_mask)

    def _read_data_uri(self, uri: str, param: str) -> bytes:
        if len(uri) > 4 * self.settings.max_image_bytes:
            raise ApiError(
                413,
                f"The image may have {self.settings.max_image_bytes} bytes; send a smaller one.",
                param,
                "image_too_large",
            )
        try:
            return read_data_url(uri, "sent")
        except ValueError as error:
            raise ApiError(400, str(error), param, "invalid_image") from error


async def encode(image: Image.Image, output_format: str = "png", quality: int = 90) -> str:
    """A picture as a file in base64."""
    return await asyncio.to_thread(_encode, image, output_format, quality)


def _encode(image: Image.Image, output_format: str, quality: int) -> str:
    buffer = io.BytesIO()
    options: dict[str, Any] = {} if output_format == "png" else {"quality": quality}
    image.save(buffer, format=output_format.upper(), **options)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def data_uri(encoded: str, output_format: str = "png") -> str:
    """A file in base64 as a URI."""
    return f"data:{_MIME[output_format]};base64,{encoded}"
