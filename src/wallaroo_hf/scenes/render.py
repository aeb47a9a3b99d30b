"""From a scene to its picture, in tens of microseconds: slots are cached tiles."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

from .palette import BACKGROUND_COLOURS, OBJECT_COLOURS
from .scene import Scene
from .shapes import SLOT, coverage


@cache
def tile(shape: str, colour: str, background: str) -> np.ndarray:
    """One slot with one object: read-only `(SLOT, SLOT, 3)` uint8 RGB, antialiased."""
    alpha = coverage(shape)[..., None]
    mixed = alpha * np.array(OBJECT_COLOURS[colour]) + (1 - alpha) * np.array(BACKGROUND_COLOURS[background])
    pixels = np.rint(mixed).astype(np.uint8)
    pixels.setflags(write=False)
    return pixels


def render_array(scene: Scene) -> np.ndarray:
    """The picture of a scene as `(height, width, 3)` uint8 RGB."""
    pixels = np.empty((scene.height, scene.width, 3), dtype=np.uint8)
    pixels[:] = BACKGROUND_COLOURS[scene.background]
    for thing in scene.objects:
        top, left = thing.row * SLOT, thing.col * SLOT
        pixels[top : top + SLOT, left : left + SLOT] = tile(thing.shape, thing.colour, scene.background)
    return pixels


def render(scene: Scene) -> Image.Image:
    """The picture of a scene as an RGB image of `scene.width` x `scene.height` pixels."""
    return Image.fromarray(render_array(scene))
