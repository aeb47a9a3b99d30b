"""Server-sent events, as the OpenAI client reads them."""

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import StreamingResponse

from .errors import ApiError


def sse(data: dict[str, Any], event: str | None = None) -> str:
    """One event."""
    head = "" if event is None else f"event: {event}\n"
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n"


async def stream(chunks: AsyncIterator[str]) -> StreamingResponse:
    """Streams events. What goes wrong before the first one is an ordinary error; later it is an event of its own.

    Raises:
        ApiError: from before the first event.
    """
    first = await anext(chunks)

    async def body() -> AsyncIterator[str]:
        try:
            yield first
            async for chunk in chunks:
                yield chunk
        except ApiError as error:
            yield sse(error.body())

    return StreamingResponse(body(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})
