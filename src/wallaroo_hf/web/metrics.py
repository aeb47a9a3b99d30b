"""What the server counts, for Prometheus."""

import functools
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ..families.prefixes import PrefixStore

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one app, in a registry of its own.

    Args:
        waiting: how many images and answers wait now.
        running: how many are being computed now.
        prefixes: where what was read of chats is kept.
    """

    def __init__(self, waiting: Callable[[], float], running: Callable[[], float], prefixes: PrefixStore) -> None:
        self.registry = CollectorRegistry()
        with_registry: Any = {"registry": self.registry}
        self.requests = Counter("wallaroo_requests", "Answered requests.", ("route", "status"), **with_registry)
        self.seconds = Histogram(
            "wallaroo_request_seconds",
            "Seconds from request to answer.",
            ("route",),
            buckets=_SECONDS,
            **with_registry,
        )
        self.batches = Histogram(
            "wallaroo_batch_size",
            "Images or answers that began together.",
            ("task",),
            buckets=_SIZES,
            **with_registry,
        )
        self.joined = Counter(
            "wallaroo_joined", "Images and answers that began while others were under way.", ("task",), **with_registry
        )
        self.wait_seconds = Histogram(
            "wallaroo_wait_seconds",
            "Seconds in the queue, from arrival to beginning.",
            ("task",),
            buckets=_SECONDS,
            **with_registry,
        )
        self.batch_seconds = Histogram(
            "wallaroo_batch_seconds",
            "Seconds of an image, or of an answer and those that it was batched with, from the beginning.",
            ("task",),
            buckets=_SECONDS,
            **with_registry,
        )
        self.step_rows = Histogram(
            "wallaroo_step_rows",
            "Images or answers under way in a step of all of them.",
            ("lane",),
            buckets=_SIZES,
            **with_registry,
        )
        self.cancelled = Counter("wallaroo_cancelled", "Images and answers given up.", ("reason",), **with_registry)
        self.images = Counter("wallaroo_images", "Images drawn.", **with_registry)
        self.tokens = Counter("wallaroo_text_tokens", "Tokens of answers, image codes included.", **with_registry)
        Gauge("wallaroo_waiting", "Images and answers in the queue.", **with_registry).set_function(waiting)
        Gauge("wallaroo_running", "Images and answers being computed.", **with_registry).set_function(running)

        for name, text, attribute in (
            ("wallaroo_prefix_tokens_reused", "Tokens of chats that were read before.", "tokens_reused"),
            ("wallaroo_prefix_tokens_read", "Tokens of chats that were read anew.", "tokens_read"),
            ("wallaroo_prefix_bytes", "Memory of what was read of chats.", "num_bytes"),
        ):
            Gauge(name, text, **with_registry).set_function(functools.partial(getattr, prefixes, attribute))

    def render(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
