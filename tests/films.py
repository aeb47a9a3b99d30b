"""Small films: a bar that grows from left to right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest


def film_frames(count: int = 12, height: int = 48, width: int = 64) -> np.ndarray:
    """`(T, H, W, 3)` uint8; no two are alike."""
    frames = np.zeros((count, height, width, 3), dtype=np.uint8)
    for index in range(count):
        frames[index, :, : (index + 1) * width // count] = (200, 30, 250 - 240 * index // count)
    return frames


def pattern(count: int, height: int, width: int) -> np.ndarray:
    """`(T, H, W, 3)` uint8 without randomness, for which transformers' own numbers were recorded."""
    t, y, x, c = np.ogrid[:count, :height, :width, :3]
    return ((t * 7 + y * 3 * (c + 1) + x * 5) % 256).astype(np.uint8)


def write_film(path: Path, frames: np.ndarray | None = None, rate: int = 10, codec: str = "libx264") -> Path:
    """Writes a film; the test is skipped without PyAV."""
    av: Any = pytest.importorskip("av", reason="films are written by PyAV")
    frames = film_frames() if frames is None else frames
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path
