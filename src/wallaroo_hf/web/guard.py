"""What stands before every route: who may ask, from where, how much, and how long it took."""

import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from .addresses import neighbourhood
from .arriving import ArrivingBodies, Receive, too_large
from .errors import ApiError, internal_error, queue_full
from .metrics import Metrics
from .server_settings import ServerSettings

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

CLIENT = "wallaroo_client"  # who asks, in the state of a request that was let in
_OPEN = ("/health",)  # answered without a key
_MAX_DIGITS = 18  # of a length that is worth reading as a number
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
        self._bodies = ArrivingBodies(settings)

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
        body = None
        try:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            refusal = self._refusal(scope["path"], scope["method"], headers)
            if refusal is None:
                scope["state"] = {**scope.get("state", {}), CLIENT: self._client(scope, headers)}
                body = self._bodies.begin(receive)
                await self.app(scope, body, counting_send)
            else:
                await refusal.response()(scope, receive, counting_send)
        finally:
            self._in_flight -= 1
            if body is not None:
                body.end()
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
        if self._keys and path not in _OPEN and method != "OPTIONS" and self._key(headers) is None:
            return ApiError(
                401,
                "The API key is missing or wrong; send it as 'Authorization: Bearer KEY'.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        length = headers.get("content-length", "0")
        digits = length.lstrip("0")
        if (
            length.isascii()
            and length.isdigit()
            and (len(digits) > _MAX_DIGITS or int(digits or "0") > self.settings.max_body_bytes)
        ):
            return too_large(self.settings.max_body_bytes)
        most = self.settings.max_queue + self.settings.max_batch + _SLACK
        if method == "POST" and self._in_flight > most and not self._bodies.give_up_slowest():
            return queue_full(1)
        return None

    def _key(self, headers: dict[str, str]) -> int | None:
        """The number of the key that a request brings, however its header writes it; None: it brings none of ours."""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = hashlib.sha256(key.strip().encode("latin-1")).digest()
        matches = [hmac.compare_digest(given, own) for own in self._keys]  # all, so that time tells nothing
        return matches.index(True) if scheme.lower() == "bearer" and any(matches) else None

    def _client(self, scope: Scope, headers: dict[str, str]) -> str:
        """Who asks: whoever has the key, else whoever is at the address. What a client can vary at will does not count."""
        if self._keys:
            return f"key {self._key(headers)}"
        client = scope.get("client")
        return neighbourhood(client[0]) if client else ""


def _host_name(header: str) -> str:
    """The name in a `Host` header, without its port; nothing if it is no such header."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:  # an unfinished IPv6 address
        return ""
