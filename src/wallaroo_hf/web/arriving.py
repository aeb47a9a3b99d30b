"""Bodies of requests while they arrive: how many bytes one may have, how many all together, and how long each may take."""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .errors import ApiError, queue_full
from .server_settings import ServerSettings

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_GRACE = 10.0  # seconds that a body may take, however small; after that it must keep to the rate
_RATE = 4096  # bytes per second
_PATIENCE = 1.0  # seconds after which a body makes room for others when there is none


class ArrivingBodies:
    """All bodies that arrive now.

    Args:
        settings: their limits.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.held = 0  # bytes of requests that are not answered yet
        self.unfinished: dict[ArrivingBody, None] = {}  # in the order in which they began

    def begin(self, receive: Receive) -> "ArrivingBody":
        """The body of a request that begins; call its `end` when the request is answered."""
        return ArrivingBody(self, receive)

    def give_up_slowest(self) -> bool:
        """Ends the body that arrives longest, if that is long; whether there is such a one."""
        slowest = next(iter(self.unfinished), None)
        if slowest is None or time.monotonic() - slowest.began < _PATIENCE:
            return False
        slowest.give_up()
        return True


class ArrivingBody:
    """A request's `receive`, which raises where the body is too long or does not come in time."""

    def __init__(self, bodies: ArrivingBodies, receive: Receive) -> None:
        self.began = time.monotonic()
        self._bodies, self._receive = bodies, receive
        self._received = 0
        self._whole = False
        self._given_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        bodies.unfinished[self] = None

    async def __call__(self) -> MutableMapping[str, Any]:
        """The next message.

        Raises:
            ApiError: 408 if it does not come in time, 413 if the body is too large, 429 if all of them together are.
        """
        if self._whole:  # what comes now is the client's leaving
            return await self._receive()
        message = await self._next()
        size = len(message.get("body", b""))
        self._received += size
        self._bodies.held += size
        if not message.get("more_body", False):
            self._finish()
        settings = self._bodies.settings
        if self._received > settings.max_body_bytes:
            raise too_large(settings.max_body_bytes)
        if self._bodies.held > settings.max_queue_bytes and not self._bodies.give_up_slowest():
            raise queue_full(1)
        return message

    def give_up(self) -> None:
        """Ends it, to make room for others."""
        self._bodies.unfinished.pop(self, None)
        if not self._given_up.done():
            self._given_up.set_result(None)

    def end(self) -> None:
        """The request is answered."""
        self._finish()
        self._bodies.held -= self._received
        self._received = 0

    def _finish(self) -> None:
        self._whole = True
        self._bodies.unfinished.pop(self, None)

    async def _next(self) -> MutableMapping[str, Any]:
        allowed = min(self._bodies.settings.body_timeout, _GRACE + self._received / _RATE)
        receiving: asyncio.Future[Any] = asyncio.ensure_future(self._receive())
        try:
            await asyncio.wait(
                {receiving, self._given_up},
                timeout=max(self.began + allowed - time.monotonic(), 0.001),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if receiving.done() and not self._given_up.done():
                return receiving.result()
        finally:
            receiving.cancel()
        raise ApiError(
            408,
            f"The request did not arrive within {time.monotonic() - self.began:.3g} seconds; send it faster.",
            code="body_timeout",
        )


def too_large(max_bytes: int) -> ApiError:
    """A request is larger than it may be."""
    return ApiError(413, f"The request is larger than {max_bytes} bytes; send less.", code="body_too_large")
