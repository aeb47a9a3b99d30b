"""The eight shapes, as antialiased coverage masks of one slot."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "ring", "cross")
SLOT = 32  # pixels; 2 x 2 tokens of a tokenizer that gives one token to 16 x 16 pixels
_OVERSAMPLING = 8

Polygon = list[tuple[float, float]]


def _star() -> Polygon:
    # a plump five-pointed star whose points touch the box: the inner radius of a pentagram would be 0.38
    radii = (14.5, 7.0)
    return [
        (radii[i % 2] * math.sin(i * math.pi / 5), 1.4 - radii[i % 2] * math.cos(i * math.pi / 5)) for i in range(10)
    ]


def _heart() -> Polygon:
    points = []
    for step in range(120):
        t = 2 * math.pi * step / 120
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((0.86 * x, -0.9 * (y + 2.5)))
    return points


# x and y in pixels from the centre of the slot, y downwards
_POLYGONS: dict[str, Polygon] = {
    "square": [(-12, -12), (12, -12), (12, 12), (-12, 12)],
    "triangle": [(0, -12.5), (14, 12), (-14, 12)],
    "star": _star(),
    "heart": _heart(),
    "diamond": [(0, -13.97), (13.97, 0), (0, 13.97), (-13.97, 0)],
    "cross": [
        (-4.75, -13), (4.75, -13), (4.75, -4.75), (13, -4.75), (13, 4.75), (4.75, 4.75),
        (4.75, 13), (-4.75, 13), (-4.75, 4.75), (-13, 4.75), (-13, -4.75), (-4.75, -4.75),
    ],
}  # fmt: skip
_DISC_RADIUS = {"circle": 13.25, "ring": 13.5}
_RING_HOLE = 7.0


def _inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points lie in a shape; polygons by the even-odd rule."""
    if shape in _DISC_RADIUS:
        distance = np.hypot(x, y)
        return (distance < _DISC_RADIUS[shape]) & (distance >= (_RING_HOLE if shape == "ring" else 0.0))
    corners = _POLYGONS[shape]
    inside = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=bool)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1]):
        if y0 != y1:
            inside ^= ((y0 <= y) != (y1 <= y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside


@cache
def coverage(shape: str) -> np.ndarray:
    """How much of each pixel of a slot a shape covers.

    Args:
        shape: One of `SHAPES`.

    Returns:
        Read-only `(SLOT, SLOT)` float64 in [0, 1]; the shape is centred and keeps at least 2 pixels from the edge.
    """
    points = (np.arange(SLOT * _OVERSAMPLING) + 0.5) / _OVERSAMPLING - SLOT / 2
    fine = _inside(shape, points[None, :], points[:, None])
    mask = fine.reshape(SLOT, _OVERSAMPLING, SLOT, _OVERSAMPLING).mean(axis=(1, 3))
    mask.setflags(write=False)
    return mask
