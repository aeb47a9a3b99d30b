"""Connections of clients: how many there may be, and how long each may be without a request that is worked on.

Uvicorn closes connections that are idle after an answer, and nothing else: half a request, or an answer that is not taken,
would hold a connection for good, and without file descriptors nobody is let in any more.
"""

import asyncio
import json
import logging
import os
import sys
import time
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .errors import ApiError

_LINGER = 5.0  # seconds for an answer to go out before the connection is cut
_SPARE_FILES = 64  # for what a request opens: spooled uploads, processes that decode, URLs
_QUIET = 60.0  # seconds between two lines about connections that cannot be taken
ACCEPTED_AT_ONCE = 8  # connections beyond the most that may be open for a moment

logger = logging.getLogger(__name__)


class Connections:
    """The connections of one server.

    Args:
        most: how many may be open; see [`most_connections`].
        header_timeout: seconds in which a client must send the line and headers of a request, the next one too.
        answer_timeout: seconds in which it must take some of an answer.
    """

    def __init__(self, most: int, header_timeout: float, answer_timeout: float) -> None:
        self.most, self.header_timeout, self.answer_timeout = most, header_timeout, answer_timeout
        self.num_open = 0
        self.waiting: dict[GuardedProtocol, None] = {}  # without a request that is worked on, the longest first


class GuardedProtocol(H11Protocol):
    """Uvicorn's protocol with a deadline for whatever the client has to do.

    Where there is no room for a new connection, the one that has waited longest for its request is closed, or, if all are
    worked on, the new one gets 503.
    """

    connections_of: Connections  # set by [`guarded`]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connects."""
        super().connection_made(transport)
        self._all = self.connections_of
        self._due: str | None = None  # what the client must do: send a "request", or take an "answer"
        self._timer: asyncio.TimerHandle | None = None
        self._left_to_send = 0
        self._all.num_open += 1
        if self._all.num_open > self._all.most:
            longest = next(iter(self._all.waiting), None)
            if longest is None:
                self._turn_away(
                    ApiError(503, "The server has no free connection; try again later.", code="overloaded")
                )
            else:
                self._all.waiting.pop(longest)
                longest.transport.abort()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._all.num_open -= 1
        self._wait_for(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """The client sends something."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """An answer is written, though not yet taken."""
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        """The client takes an answer more slowly than it is written."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """The client has taken most of it."""
        super().resume_writing()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP as everything else is answered."""
        self._turn_away(ApiError(400, "The request is no HTTP/1.1 that can be read; mend it.", code="invalid_request"))

    def _watch(self) -> None:
        """Looks whose turn it is now; time begins when the client's begins, whatever it sends meanwhile."""
        if self.cycle is None or self.cycle.response_complete:
            self._wait_for("request")
        else:
            self._wait_for("answer" if self.flow.write_paused else None)

    def _wait_for(self, due: str | None) -> None:
        if due == self._due:
            return
        self._due = due
        self._all.waiting.pop(self, None)
        if due == "request" and not self.transport.is_closing():
            self._all.waiting[self] = None
        if self._timer is not None:
            self._timer.cancel()
        if due is not None:
            self._start_timer(self._all.header_timeout if due == "request" else self._all.answer_timeout)

    def _start_timer(self, seconds: float) -> None:
        self._left_to_send = self.transport.get_write_buffer_size()
        self._timer = self.loop.call_later(seconds, self._time_is_over)

    def _time_is_over(self) -> None:
        left = self.transport.get_write_buffer_size()
        if left and self._due == "request":  # it cannot be asked for the next one yet
            self._wait_for("answer")
        elif 0 < left < self._left_to_send:  # slow, but it takes the answer
            self._start_timer(self._all.answer_timeout)
        elif left or self.transport.is_closing():
            self.transport.abort()
        elif self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            seconds = f"{self._all.header_timeout:g} seconds"
            self._turn_away(ApiError(408, f"The request's headers took longer than {seconds}.", code="header_timeout"))
        else:
            self.transport.close()

    def _turn_away(self, error: ApiError) -> None:
        """Answers without asking the app, and closes the connection."""
        self._all.waiting.pop(self, None)
        if self.transport.is_closing():
            return
        self.transport.write(_raw(error))
        self.transport.close()
        if self._timer is not None:
            self._timer.cancel()
        self._start_timer(_LINGER)


def _raw(error: ApiError) -> bytes:
    """An error as the bytes of an HTTP answer."""
    body = json.dumps(error.body()).encode()
    head = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **(error.headers or {}),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    return f"HTTP/1.1 {error.status_code} {HTTPStatus(error.status_code).phrase}\r\n{lines}\r\n".encode() + body


def guarded(connections: Connections) -> type[GuardedProtocol]:
    """The protocol for a server's connections."""
    return type("GuardedProtocol", (GuardedProtocol,), {"connections_of": connections})


def most_connections(wanted: int) -> int:
    """How many connections there may be: as wanted, or what the process's limit of open files leaves, but at least one."""
    if sys.platform == "win32":  # sockets are not limited there
        return wanted
    import resource

    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return wanted
    room = allowed - (len(os.listdir("/dev/fd")) if os.path.isdir("/dev/fd") else _SPARE_FILES)
    return max(1, min(wanted, room - min(ACCEPTED_AT_ONCE + _SPARE_FILES, room // 2)))


class QuietLoop:
    """An event loop's exception handler that says once a minute that no connection can be taken, not thousands of times."""

    def __init__(self) -> None:
        self._said = -_QUIET

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Logs what an event loop reports."""
        error = context.get("exception")
        if not (isinstance(error, OSError) and str(context.get("message", "")).startswith("socket.accept()")):
            loop.default_exception_handler(context)
        elif time.monotonic() - self._said >= _QUIET:
            self._said = time.monotonic()
            logger.error("No new connection can be taken (%s); raise the limit of open files.", error.strerror)
