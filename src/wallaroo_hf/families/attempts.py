"""Errors that are told later, to those whom they concern: [`Attempt`]."""

from types import TracebackType
from typing import Self

__all__ = ["Attempt"]


class Attempt:
    """Keeps what goes wrong in its block, for work that is done for several who hear of it one by one.

    Whoever uses it must look at `error` and hand it on; it is no way to go on as if nothing had happened. What ends the
    program (Ctrl-C, `SystemExit`) passes.

    ```python
    with Attempt() as attempt:
        picture = draw(request)
    if attempt.error is not None:
        request.fail(attempt.error)
    ```

    Attributes:
        error: what went wrong, or None.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if isinstance(error, Exception):
            self.error = error
        return self.error is not None
