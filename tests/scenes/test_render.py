"""Scenes and their pictures."""

import dataclasses
import itertools
import json
import random

import numpy as np
import pytest

from wallaroo_hf.scenes import Scene, SceneObject, random_scene, render, render_array
from wallaroo_hf.scenes.palette import BACKGROUND_COLOURS, BACKGROUNDS, COLOURS, OBJECT_COLOURS
from wallaroo_hf.scenes.scene import SIZES
from wallaroo_hf.scenes.shapes import SHAPES, SLOT, coverage

STAR = SceneObject(0, 1, "star", "red")


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_fill_a_slot_and_never_touch_a_neighbour(shape):
    mask = coverage(shape)
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    assert min(rows[0], cols[0]) >= 2 and max(rows[-1], cols[-1]) <= SLOT - 3
    assert 24 <= np.ptp(cols) + 1 <= 28 and 24 <= np.ptp(rows) + 1 <= 28
    assert np.allclose(mask, mask[:, ::-1])  # symmetric and so centred
    assert 280 < mask.sum() < 600  # none is a speck beside another


def test_shapes_differ():
    masks = [coverage(shape) for shape in SHAPES]
    for first, second in itertools.combinations(masks, 2):
        assert np.minimum(first, second).sum() / np.maximum(first, second).sum() < 0.9


def test_colours_are_far_apart():
    palette = {**OBJECT_COLOURS, **BACKGROUND_COLOURS}
    assert len(palette) == 12
    for first, second in itertools.combinations(palette.values(), 2):
        assert np.linalg.norm(np.subtract(first, second)) > 88


@pytest.mark.parametrize("size", [*SIZES, (32, 32), (160, 96)])
def test_pictures_have_their_size_and_objects_their_slots(size):
    height, width = size
    scene = Scene(height, width, "beige", (SceneObject(0, width // SLOT - 1, "square", "blue"),))
    image = render(scene)
    assert (image.width, image.height, image.mode) == (width, height, "RGB")
    pixels = render_array(scene)
    assert np.array_equal(np.asarray(image), pixels)
    assert tuple(pixels[16, width - 16]) == OBJECT_COLOURS["blue"]
    untouched = pixels.copy()
    untouched[:SLOT, width - SLOT :] = BACKGROUND_COLOURS["beige"]
    assert (untouched == BACKGROUND_COLOURS["beige"]).all()


def test_equal_scenes_make_equal_pictures_and_other_scenes_others():
    rng = random.Random(0)
    scenes = {random_scene(rng) for _ in range(300)}
    pictures = {(scene.height, render_array(scene).tobytes()) for scene in scenes}
    assert len(pictures) == len(scenes)


def test_objects_are_kept_in_reading_order():
    below = SceneObject(1, 0, "ring", "blue")
    scene = Scene(96, 96, "white", (below, STAR))
    assert scene.objects == (STAR, below)
    assert scene == Scene(96, 96, "white", (STAR, below))
    assert scene.counts() == {("star", "red"): 1, ("ring", "blue"): 1}
    assert (0, 1) not in scene.free_slots() and len(scene.free_slots()) == 7


def test_scenes_survive_json():
    rng = random.Random(1)
    for _ in range(50):
        scene = random_scene(rng)
        assert Scene.from_dict(json.loads(json.dumps(scene.to_dict()))) == scene


def test_random_scenes_are_reproducible_and_varied():
    def draw(seed):
        rng = random.Random(seed)
        return [random_scene(rng) for _ in range(500)]

    scenes = draw(3)
    assert scenes == draw(3) != draw(4)
    assert {(scene.height, scene.width) for scene in scenes} == set(SIZES)
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    assert {len(scene.objects) for scene in scenes} == {1, 2, 3, 4}
    kinds = {(thing.shape, thing.colour) for scene in scenes for thing in scene.objects}
    assert len(kinds) == len(SHAPES) * len(COLOURS)
    assert random_scene(random.Random(0), (64, 64), 4).free_slots() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 100}, "100x96.*multiples of 32"),
        ({"height": 0}, "multiples of 32"),
        ({"width": "96"}, "whole numbers"),
        ({"background": "mauve"}, "unknown background 'mauve'"),
        ({"objects": (SceneObject(3, 0, "star", "red"),)}, r"slot \(3, 0\) is outside the 3x3"),
        ({"objects": (STAR, SceneObject(0, 1, "ring", "blue"))}, "share a slot"),
    ],
)
def test_bad_scenes_are_refused(change, message):
    scene = Scene(96, 96, "white", (STAR,))
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(scene, **change)


def test_bad_objects_and_dictionaries_are_refused():
    with pytest.raises(ValueError, match="unknown shape 'blob'"):
        SceneObject(0, 0, "blob", "red")
    with pytest.raises(ValueError, match="unknown object colour 'white'"):
        SceneObject(0, 0, "star", "white")
    with pytest.raises(ValueError, match="whole numbers"):
        SceneObject(0, 0.5, "star", "red")
    values = Scene(96, 96, "white", (STAR,)).to_dict()
    with pytest.raises(ValueError, match="keys height, width, background, objects"):
        Scene.from_dict({**values, "colour": "red"})
    with pytest.raises(ValueError, match="scene object must be a dictionary"):
        Scene.from_dict({**values, "objects": ["star"]})
    with pytest.raises(ValueError, match="5 objects do not fit into 4 slots"):
        random_scene(random.Random(0), (64, 64), 5)
