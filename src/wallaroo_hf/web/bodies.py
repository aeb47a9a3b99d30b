"""Bodies of requests as text: what is no whole text is refused before anything looks at it.

JSON can name half of a character (a lone surrogate, `"\\ud800"`), which Python then carries in strings that no file, answer
or tokenizer can hold. So the body is refused as one, whatever field or key it is in, known or not.
"""

import json
import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from python_multipart.multipart import parse_options_header

from .errors import ApiError

_MAY_BE_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # text that was decoded strictly has no other way to hold one
_CHARSETS = ("utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1")  # of forms; others may decode to anything


class TextRequest(Request):
    """A request whose JSON holds whole text only."""

    async def json(self) -> Any:
        """The body.

        Raises:
            ApiError: 400 if it is no JSON, or holds half of a character.
        """
        if not hasattr(self, "_json"):
            self._json = parse_json(await self.body())
        return self._json


class TextRoute(APIRoute):
    """A route that gets its body through [`TextRequest`]."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, given such a request."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(TextRequest(request.scope, request.receive))

        return handle


def parse_json(body: bytes) -> Any:
    """A body's JSON.

    Raises:
        ApiError: 400 if it is no JSON, is nested too deep, or holds half of a character; `param` names the field where it
            is one of an object's own.
    """
    try:
        text = body.decode(json.detect_encoding(body))
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise _no_json(error.msg) from error
    except UnicodeDecodeError as error:
        raise _no_json(f"it is no {error.encoding} text: {error.reason}") from error
    except ValueError as error:  # a number of thousands of digits
        raise _no_json(str(error)[:100]) from error
    except RecursionError as error:
        raise _no_json("it is nested too deep") from error
    if _MAY_BE_HALF.search(text) and not _is_whole(data):
        fields = data.items() if isinstance(data, dict) else ()
        param = next((name for name, value in fields if _is_whole(name) and not _is_whole(value)), None)
        where = "The body" if param is None else f"`{param[:60]}`"
        raise ApiError(
            400, f"{where} holds half of a character (a lone surrogate); send whole text.", param, "invalid_value"
        )
    return data


def check_charset(content_type: str) -> None:
    """Refuses forms in a character set that decodes to what is no text.

    Raises:
        ApiError: 400.
    """
    charset = parse_options_header(content_type)[1].get(b"charset", b"utf-8").decode("latin-1")
    if charset.lower() not in _CHARSETS:
        raise ApiError(
            400, f"The form's charset is '{charset[:40]}', but must be utf-8; leave it out.", code="invalid_value"
        )


def _no_json(reason: str) -> ApiError:
    return ApiError(400, f"The body is not JSON ({reason.rstrip('.')}); send a JSON object.", code="invalid_json")


def _is_whole(data: Any) -> bool:
    """Whether all strings of a JSON value, keys too, are text."""
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):  # what nests too deep to be looked at is refused, too
        return False
    return True
