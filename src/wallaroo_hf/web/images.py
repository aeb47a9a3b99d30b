"""Images in requests and answers: uploads, data: URIs and listed URLs in; PNG, JPEG or WEBP out."""

import asyncio
import base64
import io
from typing import Any

from PIL import Image

from ..processing.opening import decode_image, read_data_url
from .errors import ApiError
from .fetching import UrlFetcher
from .settings import ServerSettings

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
_AT_ONCE = 4  # each may take what `max_image_pixels` take
_MIME = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


class ImageReader:
    """Opens images of requests within the server's limits, off the event loop.

    Args:
        settings: limits, and hosts that may be fetched from.
        fetcher: for URLs; made from the settings where none is given.
    """

    def __init__(self, settings: ServerSettings, fetcher: UrlFetcher | None = None) -> None:
        self.settings = settings
        if fetcher is None and settings.url_hosts:
            fetcher = UrlFetcher(settings.url_hosts, settings.max_image_bytes, settings.url_timeout)
        self._fetcher = fetcher
        self._decoding, self._fetching = asyncio.Semaphore(_AT_ONCE), asyncio.Semaphore(_AT_ONCE)

    async def open_bytes(self, data: bytes, param: str) -> Image.Image:
        """The picture in a file.

        Raises:
            ApiError: 413 if the file is too large, 400 if it cannot be used.
        """
        if len(data) > self.settings.max_image_bytes:
            raise ApiError(
                413,
                f"The image has {len(data)} bytes, but may have {self.settings.max_image_bytes}; send a smaller one.",
                param,
                "image_too_large",
            )
        async with self._decoding:
            try:
                return await asyncio.to_thread(decode_image, data, "sent", self.settings.max_image_pixels, _FORMATS)
            except ValueError as error:
                raise ApiError(400, str(error), param, "invalid_image") from error

    async def open_url(self, url: str, param: str) -> Image.Image:
        """The picture behind a data: URI, or behind a URL where URLs are allowed.

        Raises:
            ApiError: 400 or 413 if it must not or cannot be used.
        """
        if url[:5].lower() == "data:":
            return await self.open_bytes(self._read_data_uri(url, param), param)
        if self._fetcher is None:
            raise ApiError(
                400,
                "The image is no data: URI, and this server fetches no URLs and reads no paths; send the image itself as "
                "'data:image/png;base64,...'.",
                param,
                "url_not_allowed",
            )
        async with self._fetching:
            try:
                data = await asyncio.to_thread(self._fetcher.fetch, url)
            except ValueError as error:
                raise ApiError(400, str(error), param, "url_not_allowed") from error
        return await self.open_bytes(data, param)

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
