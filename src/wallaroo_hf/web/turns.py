"""A few places of which clients take turns, so that who asks for much does not keep others waiting."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

from .errors import timed_out


class Turns:
    """Places for work that few may do at once; used on the event loop.

    Args:
        places: how many may work at once.
        timeout: seconds that one may wait for a place.
    """

    def __init__(self, places: int, timeout: float) -> None:
        self._free, self._timeout = places, timeout
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # by client; the first one's turn is next

    @contextlib.asynccontextmanager
    async def place(self, client: str) -> AsyncIterator[None]:
        """A place, once it is this client's turn.

        Raises:
            ApiError: 504 if it does not become free in time.
        """
        await self._take(client)
        try:
            yield
        finally:
            self._pass_on()

    async def _take(self, client: str) -> None:
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(turn)
        try:
            await asyncio.wait({turn}, timeout=self._timeout)
        except asyncio.CancelledError:
            if turn.done():
                self._pass_on()
            turn.cancel()
            raise
        if not turn.done():
            turn.cancel()
            raise timed_out(self._timeout)

    def _pass_on(self) -> None:
        """Gives a place to the next one of the next client."""
        while self._waiting:
            client = next(iter(self._waiting))
            turns = self._waiting.pop(client)
            while turns and turns[0].done():  # given up
                turns.popleft()
            if turns:
                turns.popleft().set_result(None)
                if turns:
                    self._waiting[client] = turns  # behind all others
                return
        self._free += 1
