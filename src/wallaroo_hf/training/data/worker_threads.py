"""A function over many items with threads, a few items ahead, results in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], num_workers: int
) -> Iterator[tuple[Item, Result | ValueError]]:
    """Items with the function's results, or with the `ValueError` that it raised.

    Args:
        num_workers: threads; 0 = this one.
    """

    def attempt(item: Item) -> Result | ValueError:
        try:
            return function(item)
        except ValueError as error:
            return error

    if not num_workers:
        yield from ((item, attempt(item)) for item in items)
        return
    waiting: deque[tuple[Item, Future[Result | ValueError]]] = deque()
    with ThreadPoolExecutor(num_workers) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(attempt, item)))
                if len(waiting) > 4 * num_workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:  # whoever stops early does not wait for the rest
            for _, future in waiting:
                future.cancel()
