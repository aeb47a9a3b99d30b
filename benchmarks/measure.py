"""Stopwatches, interleaved rounds, counters."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_HOST_READS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero")


def now(device: torch.device) -> float:
    """Seconds: of this process's CPU time on CPU (other processes do not count), of the wall after a wait elsewhere."""
    if device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize()
    return time.perf_counter()


def time_steps(run: Callable[[], Any], decoder: torch.nn.Module, device: torch.device) -> tuple[float, float]:
    """Seconds before and after the end of the prefill's forward, the first one of `decoder` in `run`."""
    stamps: list[float] = []

    def stamp(*_: Any) -> None:
        handle.remove()  # the steps run without a hook, compiled or not
        stamps.append(now(device))

    handle = decoder.register_forward_hook(stamp)
    gc.collect()
    start = now(device)
    run()
    end = now(device)
    return stamps[0] - start, end - stamps[0]


def interleave(
    variants: dict[str, Callable[[], float]], rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:  # fmt: skip
    """Measures every variant once per round, in an order that rotates; values by variant, by round."""
    names = list(variants)
    for _ in range(warm_up):
        for name in names:
            variants[name]()
    values: dict[str, list[float]] = {name: [] for name in names}
    for index in range(rounds):
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            values[name].append(variants[name]())
    return values


def spread(values: Sequence[float], digits: int = 4) -> dict[str, Any]:
    """Median, smallest, largest, and all."""
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
        "rounds": [round(value, digits) for value in values],
    }


def ratio(slow: Sequence[float], fast: Sequence[float]) -> dict[str, Any]:
    """How many times as long `slow` takes as `fast`, round by round."""
    return spread([a / b for a, b in zip(slow, fast, strict=True)])


@contextmanager
def counting_calls(**modules: torch.nn.Module) -> Any:
    """Yields a dict that counts the forwards of each module."""
    counts = dict.fromkeys(modules, 0)

    def count(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            counts[name] += 1

        return hook

    handles = [module.register_forward_hook(count(name)) for name, module in modules.items()]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


class CountingReads(TorchDispatchMode):
    """Counts operations that make the host wait for a value of the device (`bool(tensor)`, `.item()`, `nonzero`)."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        if func.name() in _HOST_READS:
            self.reads += 1
        return func(*args, **(kwargs or {}))


def copy_bandwidth(device: torch.device, seconds: float = 1.0) -> float:
    """Bytes per second, read and written, of a large copy on the device."""
    num_bytes = 2**28 if device.type == "cpu" else 2**32
    source = torch.ones(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    best, spent = 0.0, 0.0
    while spent < seconds:
        start = now(device)
        target.copy_(source)
        took = now(device) - start
        spent += took
        best = max(best, 2 * num_bytes / took)
    return best


def peak_memory(device: torch.device) -> int | None:
    """Bytes at most allocated on the device since the last call of `reset_peak_memory`; None on CPU."""
    return None if device.type == "cpu" else torch.accelerator.max_memory_allocated()


def reset_peak_memory(device: torch.device) -> None:
    """Starts a new count for `peak_memory`."""
    if device.type != "cpu":
        torch.accelerator.reset_peak_memory_stats()
