"""What stands before every route: who may ask, from where, how much, and how long it took."""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from .errors import ApiError, internal_error, queue_full
from .metrics import Metrics
from .settings import ServerSettings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_OPEN = ("/health",)  # answered without a key
_SLACK = 32  # requests that may be read at once while the queue is full


class Guard:
    """ASGI middleware; refuses before a body is read where it can.

    Args:
        app: what it guards.
        settings: keys, hosts and limits.
        metrics: where requests are counted.
    """

    def __init__(self, app: Application, settings: ServerSettings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics
        self._keys = [hashlib.sha256(key.encode()).digest() for key in settings.api_keys]
        self._hosts = {host.lower() for host in settings.allowed_hosts}
        self._in_flight = 0
        self._held = 0  # bytes of the bodies of requests that are not answered yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), [internal_error().status_code]

        async def counting_send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
            await send(message)

        self._in_flight += 1
        received = [0]
        try:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            refusal = self._refusal(scope["path"], scope["method"], headers)
            if refusal is None:
                await self.app(scope, self._limited(receive, received), counting_send)
            else:
                await refusal.response()(scope, receive, counting_send)
        finally:
            self._in_flight -= 1
            self._held -= received[0]
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, str(status[0])).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - start)

    def _refusal(self, path: str, method: str, headers: dict[str, str]) -> ApiError | None:
        """Why a request is not let in, or None."""
        host = _host_name(headers.get("host", ""))
        if self._hosts and host not in self._hosts:
            return ApiError(
                403, f"This server is not called '{host[:100]}'; add the name with --allowed-host.", code="wrong_host"
            )
        origin = headers.get("origin")
        own = origin is not None and origin.partition("://")[2] == headers.get("host")
        if origin is not None and not own and not {origin, "*"} & set(self.settings.cors_origins):
            return ApiError(
                403,
                f"Web pages of '{origin[:100]}' may not use this server; allow them with --cors-origin.",
                code="wrong_origin",
            )
        if self._keys and path not in _OPEN and method != "OPTIONS" and not self._has_key(headers):
            return ApiError(
                401,
                "The API key is missing or wrong; send it as 'Authorization: Bearer KEY'.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.settings.max_body_bytes:
            return self._too_large()
        most = self.settings.max_queue + self.settings.max_batch + _SLACK
        if method == "POST" and self._in_flight > most:
            return queue_full(1)
        return None

    def _has_key(self, headers: dict[str, str]) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = hashlib.sha256(key.strip().encode("latin-1")).digest()
        matches = [hmac.compare_digest(given, own) for own in self._keys]  # all, so that time tells nothing
        return scheme.lower() == "bearer" and any(matches)

    def _too_large(self) -> ApiError:
        return ApiError(
            413, f"The request is larger than {self.settings.max_body_bytes} bytes; send less.", code="body_too_large"
        )

    def _limited(self, receive: Receive, received: list[int]) -> Receive:
        """`receive` that raises where a body is too long, or does not come in time; counts its bytes in `received`."""
        whole = False
        deadline = time.monotonic() + self.settings.body_timeout

        async def limited() -> MutableMapping[str, Any]:
            nonlocal whole
            if whole:  # what comes now is the client's leaving
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(deadline - time.monotonic(), 0.001))
            except TimeoutError as error:
                raise ApiError(
                    408,
                    f"The request did not arrive within {self.settings.body_timeout:g} seconds; send it faster.",
                    code="body_timeout",
                ) from error
            size = len(message.get("body", b""))
            received[0] += size
            self._held += size
            whole = not message.get("more_body", False)
            if received[0] > self.settings.max_body_bytes:
                raise self._too_large()
            if self._held > self.settings.max_queue_bytes:
                raise queue_full(1)
            return message

        return limited


def _host_name(header: str) -> str:
    """The name in a `Host` header, without its port; nothing if it is no such header."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:  # an unfinished IPv6 address
        return ""
