"""Scenes with one thing changed, and pictures made worse, for the tests of the judge."""

import dataclasses
import random

import numpy as np
from PIL import ImageFilter

from wallaroo_hf.scenes import Scene, SceneObject, render
from wallaroo_hf.scenes.palette import BACKGROUNDS, COLOURS
from wallaroo_hf.scenes.shapes import SHAPES


def other(rng: random.Random, names, name):
    return rng.choice([one for one in names if one != name])


def exchange(scene: Scene, old: SceneObject, **changes) -> Scene:
    """The scene with one object changed."""
    objects = tuple(dataclasses.replace(one, **changes) if one == old else one for one in scene.objects)
    return dataclasses.replace(scene, objects=objects)


def reshape(rng, scene, thing):
    return exchange(scene, thing, shape=other(rng, SHAPES, thing.shape))


def recolour(rng, scene, thing):
    return exchange(scene, thing, colour=other(rng, COLOURS, thing.colour))


def displace(rng, scene, thing):
    row, col = rng.choice(scene.free_slots())
    return exchange(scene, thing, row=row, col=col)


def remove(rng, scene, thing):
    return dataclasses.replace(scene, objects=tuple(one for one in scene.objects if one != thing))


def add(rng, scene, thing=None):
    extra = SceneObject(*rng.choice(scene.free_slots()), rng.choice(SHAPES), rng.choice(COLOURS))
    return dataclasses.replace(scene, objects=(*scene.objects, extra))


def repaint(rng, scene, thing=None):
    return dataclasses.replace(scene, background=other(rng, BACKGROUNDS, scene.background))


def tokenizer_like(scene: Scene, seed: int) -> np.ndarray:
    """The picture after a lossy tokenizer: blur, a colour cast and noise of a few grey levels, a pixel's shift."""
    rng = np.random.default_rng(seed)
    pixels = np.asarray(render(scene).filter(ImageFilter.GaussianBlur(1.0)), dtype=np.float64)
    pixels = np.roll(pixels, tuple(rng.integers(-1, 2, 2)), (0, 1))
    pixels += rng.normal(0, 5, 3) + rng.normal(0, 5, pixels.shape)
    return np.clip(pixels, 0, 255).astype(np.uint8)
