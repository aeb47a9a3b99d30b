"""Errors as OpenAI's API words them: `{"error": {"message", "type", "param", "code"}}`."""

import logging
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from ..files.whole_text import printable

_given = reprlib.Repr()  # of what was given: short, however long or deep it is
_given.maxstring = _given.maxother = 60

logger = logging.getLogger(__name__)

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(HTTPException):
    """An answer that is no success.

    Args:
        status: HTTP status.
        message: one sentence: what was given, what was expected, what to do.
        param: the field that is wrong, or None.
        code: a short name for programs, or None.
        headers: more headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.param, self.code = param, code

    @property
    def type(self) -> str:
        """OpenAI's name for errors of this status."""
        return _TYPES.get(self.status_code, "invalid_request_error" if self.status_code < 500 else "server_error")

    def body(self) -> dict[str, Any]:
        """The JSON to answer with."""
        param = None if self.param is None else printable(self.param)
        return {
            "error": {"message": printable(str(self.detail)), "type": self.type, "param": param, "code": self.code}
        }

    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(self.body(), self.status_code, headers=self.headers)


def queue_full(retry_after: int) -> ApiError:
    """There is no room for a request now."""
    return ApiError(
        429,
        f"The queue is full; try again in {retry_after} seconds.",
        code="queue_full",
        headers={"Retry-After": str(retry_after)},
    )


def shutting_down() -> ApiError:
    """The server finishes what it has begun and takes nothing new."""
    return ApiError(503, "The server is shutting down; try again later.", code="shutting_down")


def timed_out(seconds: float) -> ApiError:
    """A request took too long. Clients are told not to repeat it, which would only add to the load."""
    return ApiError(
        504,
        f"The request took longer than {seconds:g} seconds, waiting included; ask for fewer or smaller images.",
        code="timeout",
        headers={"x-should-retry": "false"},
    )


def client_gone() -> ApiError:
    """Nobody reads this; it ends the work and is counted."""
    return ApiError(499, "The client closed the connection.", code="client_closed_request")


def internal_error() -> ApiError:
    """Our fault; what exactly it is stays in the log."""
    return ApiError(500, "The server failed at this request; its log says why.", code="internal_error")


def failed(error: BaseException) -> ApiError:
    """What a client is told about an exception of the worker: `ValueError`s are about the request, others are ours."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ValueError):
        return ApiError(400, str(error).partition("\n")[0][:500], code="invalid_value")
    if type(error).__name__ == "OutOfMemoryError":
        return ApiError(503, "The device's memory is full; ask for a smaller image.", code="out_of_memory")
    logger.error("A request failed.", exc_info=error)
    return internal_error()


def from_validation(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """The first of pydantic's errors, as one sentence."""
    error = errors[0]
    path = [str(part)[:60] for part in error["loc"] if part != "body"]
    param = ".".join(path) or None
    if error["type"] == "value_error":
        message = str(error["ctx"]["error"])
        named = re.search(r"`(\w+)`", message)  # our sentences name the field first
        if named is not None and named[1] not in path[-1:]:
            param = ".".join([*path, named[1]])
    elif param is None:
        message = "The body must be a JSON object with `Content-Type: application/json`."
    elif error["type"] == "missing":
        message = f"`{param}` is missing; it must be given."
    else:
        message = f"`{param}` is {_given.repr(error.get('input'))}: {error['msg'][:1].lower()}{error['msg'][1:]}."
    return ApiError(400, message, param, "invalid_value")


def install_handlers(app: FastAPI) -> None:
    """Makes an app answer every error in OpenAI's format."""

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error, ApiError):
            return error.response()
        path = request.scope["path"][:100]  # not `request.url`, which the `Host` header is a part of
        message = {
            404: f"There is nothing at '{path}'; see /openapi.json for what there is.",
            405: f"'{path}' does not answer to {request.method}; see /openapi.json for what it answers to.",
        }.get(error.status_code, f"The request cannot be read ({str(error.detail).rstrip('.')}); mend it.")
        return ApiError(error.status_code, message, headers=error.headers).response()

    @app.exception_handler(RequestValidationError)
    async def _validation(_: Request, error: RequestValidationError) -> JSONResponse:
        return from_validation(error.errors()).response()

    @app.exception_handler(Exception)
    async def _bug(_: Request, error: Exception) -> JSONResponse:  # it is logged by whoever serves the app
        return internal_error().response()
