"""The judge: it takes what is right, also when blurred, and refuses what differs in one thing."""

import dataclasses
import random
import time

import numpy as np
import pytest
from PIL import Image

import scene_changes as changes
from wallaroo_hf.scenes import (
    CaptionSpec,
    EditSpec,
    ObjectSpec,
    Scene,
    SceneObject,
    Selector,
    check_caption,
    check_edit,
    make_row,
    random_scene,
    read_scene,
    render,
    render_array,
)
from wallaroo_hf.scenes.geometry import holds, is_at
from wallaroo_hf.scenes.tasks import CATEGORIES

CAPTIONS = [make_row(1, index, ("train", "test")[index % 2], "generation") for index in range(280)]
EDITS = [make_row(1, index, ("train", "test")[index % 2], "editing") for index in range(240)]


def _share(verdicts):
    verdicts = [bool(verdict) for verdict in verdicts]
    assert len(verdicts) >= 100, "too few to tell"
    return sum(verdicts) / len(verdicts)


def _target(row):
    return Scene.from_dict(row["target_scene"])


def _caption_rows(attribute):
    """Rows whose caption says something about an attribute."""
    if attribute == "background":
        return [row for row in CAPTIONS if "background" in row["spec"]]
    if attribute == "colour":
        return [row for row in CAPTIONS if "colour" in row["spec"]["objects"][0]][:150]
    if attribute == "position":
        rows = (make_row(1, index, "train", "generation", "position") for index in range(150))
        return [row for row in rows if "relations" in row["spec"] or "place" in row["spec"]["objects"][0]]
    return CAPTIONS[:120]


def _changed_caption(rng, row, attribute):
    """The row's scene with one thing changed that its caption names."""
    scene, spec = _target(row), row["spec"]
    if attribute == "position":
        first, *rest = scene.objects
        if rest:  # trade places
            return _exchange_places(scene, first, rest[0])
        place, grid = spec["objects"][0]["place"], (scene.rows, scene.cols)
        slot = rng.choice([slot for slot in scene.slots() if not is_at(place, slot, grid)])
        return changes.exchange(scene, first, row=slot[0], col=slot[1])
    change = {
        "shape": changes.reshape,
        "colour": changes.recolour,
        "fewer": changes.remove,
        "more": changes.add,
        "background": changes.repaint,
    }[attribute]
    return change(rng, scene, rng.choice(scene.objects))


def _exchange_places(scene, first, second):
    moved = {first: (second.row, second.col), second: (first.row, first.col)}
    objects = (dataclasses.replace(one, row=moved[one][0], col=moved[one][1]) for one in (first, second))
    return dataclasses.replace(scene, objects=tuple(objects))


def test_right_pictures_of_captions_are_accepted():
    assert _share(check_caption(render(_target(row)), row["spec"]) for row in CAPTIONS) >= 0.995


def test_right_pictures_are_accepted_through_a_tokenizer():
    pictures = [(row, changes.tokenizer_like(_target(row), index)) for index, row in enumerate(CAPTIONS[:120])]
    assert _share(check_caption(picture, row["spec"]) for row, picture in pictures) >= 0.97


@pytest.mark.parametrize("attribute", ["shape", "colour", "fewer", "more", "position", "background"])
def test_wrong_pictures_of_captions_are_refused(attribute):
    rng = random.Random(attribute)
    rows = _caption_rows(attribute)
    verdicts = [check_caption(render(_changed_caption(rng, row, attribute)), row["spec"]) for row in rows]
    assert _share(verdicts) <= 0.01
    assert all(verdict.ok or len(verdict.reason) > 10 for verdict in verdicts)


@pytest.mark.parametrize("attribute", ["shape", "colour"])
def test_wrong_pictures_are_refused_through_a_tokenizer(attribute):
    rng = random.Random(attribute)
    rows = _caption_rows(attribute)[:110]
    pictures = [changes.tokenizer_like(_changed_caption(rng, row, attribute), at) for at, row in enumerate(rows)]
    assert _share(check_caption(picture, row["spec"]) for row, picture in zip(rows, pictures)) <= 0.01


def test_right_edits_are_accepted():
    assert _share(check_edit(row["scene"], render(_target(row)), row["spec"]) for row in EDITS) >= 0.995
    pictures = [(row, changes.tokenizer_like(_target(row), index)) for index, row in enumerate(EDITS[:120])]
    assert _share(check_edit(row["scene"], picture, row["spec"]) for row, picture in pictures) >= 0.97


def test_sources_are_not_accepted_as_edits():
    assert (
        _share(check_edit(row["scene"], render(Scene.from_dict(row["scene"])), row["spec"]) for row in EDITS[:140])
        == 0
    )


@pytest.mark.parametrize("change", ["reshape", "recolour", "displace", "remove", "add", "repaint"])
def test_edits_that_also_change_something_else_are_refused(change):
    rng = random.Random(change)
    verdicts = []
    for row in EDITS[:130]:
        scene, target = Scene.from_dict(row["scene"]), _target(row)
        unrelated = [thing for thing in target.objects if thing in scene.objects]
        if unrelated or change in ("add", "repaint"):
            wrong = getattr(changes, change)(rng, target, rng.choice(unrelated) if unrelated else None)
            verdicts.append(check_edit(scene, render(wrong), row["spec"]))
    assert _share(verdicts) <= 0.01


@pytest.mark.parametrize("change", ["reshape", "recolour", "remove"])
def test_edits_with_the_wrong_outcome_are_refused(change):
    rng = random.Random(change)
    verdicts = []
    for row in EDITS[:190]:
        scene, target = Scene.from_dict(row["scene"]), _target(row)
        new = [thing for thing in target.objects if thing not in scene.objects]
        if new and row["category"] != "background":
            verdicts.append(check_edit(scene, render(getattr(changes, change)(rng, target, new[0])), row["spec"]))
    assert _share(verdicts) <= 0.01


def test_additions_and_moves_to_the_wrong_place_are_refused():
    rng = random.Random(0)
    verdicts = []
    for index in range(180):
        row = make_row(2, index, "train", "editing", ("add", "move")[index % 2])
        scene, target, spec = Scene.from_dict(row["scene"]), _target(row), EditSpec.from_dict(row["spec"])
        (new,) = set(target.objects) - set(scene.objects)
        asked = spec.place is not None or spec.direction is not None
        wrong = [slot for slot in target.free_slots() if asked and not _is_asked_for(scene, spec, slot)]
        if wrong:
            row_of_slot, col = rng.choice(wrong)
            picture = render(changes.exchange(target, new, row=row_of_slot, col=col))
            verdicts.append(check_edit(scene, picture, spec))
    assert _share(verdicts) <= 0.01


def _is_asked_for(scene, spec, slot):
    if spec.place:
        return is_at(spec.place, slot, (scene.rows, scene.cols))
    anchor = spec.anchor.pick(scene)
    return holds(spec.direction, slot, (anchor.row, anchor.col), 1)


def test_an_addition_without_a_place_may_be_anywhere():
    scene = Scene(96, 96, "white", (SceneObject(0, 0, "star", "red"),))
    spec = {"operation": "add", "shape": "ring", "colour": "blue"}
    for row, col in scene.free_slots():
        target = dataclasses.replace(scene, objects=(*scene.objects, SceneObject(row, col, "ring", "blue")))
        assert check_edit(scene, render(target), spec)


def test_objects_are_found_off_the_lattice():
    scene = Scene(96, 96, "black", (SceneObject(1, 1, "heart", "pink"), SceneObject(0, 0, "cross", "green")))
    for shift in ((5, -3), (9, 11), (0, 7)):
        read = read_scene(np.roll(render_array(scene), shift, (0, 1)))
        assert [str(thing) for thing in read.objects] == ["green cross", "pink heart"]
        centre = (48 + shift[0], 48 + shift[1])
        assert read.objects[1].centre == pytest.approx(centre, abs=0.6)
    nudged = np.roll(render_array(scene), (4, 4), (0, 1))  # all the same, to within half a slot
    assert check_edit(
        dataclasses.replace(scene, background="white"), nudged, {"operation": "background", "background": "black"}
    )


def test_all_shapes_are_read_on_all_backgrounds():
    rng = random.Random(5)
    for index in range(80):
        scene = random_scene(rng, num_objects=rng.randint(0, 8))
        for picture in (render(scene), changes.tokenizer_like(scene, index)):
            read = read_scene(picture)
            assert (read.height, read.width, read.background) == (scene.height, scene.width, scene.background)
            found = [(*read.slot(thing), thing.shape, thing.colour) for thing in read.objects]
            assert found == [(thing.row, thing.col, thing.shape, thing.colour) for thing in scene.objects]


def test_what_is_no_scene_is_named_so():
    spec = CaptionSpec((ObjectSpec("star"),))
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    assert "background is none" in check_caption(noise, spec).reason
    assert read_scene(Image.new("RGB", (64, 32), (255, 0, 255))).background is None
    blob = render_array(Scene(96, 96, "white"))
    blob[20:34, 10:80] = (218, 38, 44)
    (found,) = read_scene(blob).objects
    assert found.shape is None and found.colour == "red" and found.centre == (27, 45) and found.box == (20, 10, 34, 80)
    assert not check_caption(blob, spec)
    mixed = render_array(Scene(96, 96, "white", (SceneObject(1, 1, "circle", "red"),)))
    mixed[48:][(mixed[48:] != 250).any(axis=-1)] = (30, 86, 214)
    assert [thing.colour for thing in read_scene(mixed).objects] == [None]
    speck = render_array(Scene(96, 96, "grey"))
    speck[3:8, 3:8] = 255
    assert read_scene(speck).objects == ()  # too small to be meant


def test_pictures_of_any_mode_are_read_and_bad_arrays_refused():
    scene = Scene(96, 96, "beige", (SceneObject(1, 2, "ring", "cyan"),))
    assert read_scene(render(scene).convert("RGBA")) == read_scene(render(scene))
    with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8, not \(96, 96, 3\) float64"):
        read_scene(render_array(scene) / 255)


def _scene(*objects):
    return Scene(96, 96, "white", tuple(SceneObject(*thing) for thing in objects))


def test_captions_with_several_relations_and_open_entries():
    picture = render(_scene((0, 0, "star", "red"), (0, 2, "star", "blue"), (2, 1, "ring", "blue")))
    star, blue, anything = ObjectSpec("star"), ObjectSpec(colour="blue"), ObjectSpec()
    assert check_caption(picture, CaptionSpec((ObjectSpec("star", count=2), blue), ((0, "above", 1),)))
    assert check_caption(picture, CaptionSpec((blue, star, anything), ((1, "left_of", 0), (0, "above", 2))))
    verdict = check_caption(picture, CaptionSpec((star, blue, anything), ((0, "below", 1), (1, "below", 2))))
    assert not verdict and "0 below" not in verdict.reason and "below" in verdict.reason
    assert "3 objects expected" not in check_caption(picture, CaptionSpec((star, star, star))).reason
    assert "2 objects expected, found 3: red star" in check_caption(picture, CaptionSpec((star, star))).reason


def test_a_caption_relates_no_entry_to_itself():
    with pytest.raises(
        ValueError, match=r"\(0, 'left_of', 0\) is of entry 0 of `objects` to itself; name two entries"
    ):
        CaptionSpec((ObjectSpec("star"), ObjectSpec("ring")), ((0, "left_of", 0),))


def test_many_alike_objects_are_judged_at_once():
    objects = [(row, col, "star", "red") for row in range(3) for col in range(3)]
    spec = CaptionSpec((ObjectSpec("star", count=8), ObjectSpec("star")), ((0, "above", 1),))
    start = time.process_time()
    assert not check_caption(render(_scene(*objects)), spec)
    assert time.process_time() - start < 1


def test_faults_are_named():
    scene = _scene((0, 0, "star", "red"), (2, 1, "ring", "blue"))
    star = Selector("star")
    cases = [
        (EditSpec("move", star), scene, "has not moved"),
        (EditSpec("remove", star), scene, "0 changed or new objects expected, found 1: red star"),
        (EditSpec("recolour", star, colour="green"), scene, "expected a green star, found a red star"),
        (EditSpec("remove", star), _scene((0, 0, "star", "red")), "blue ring did not stay"),
        (
            EditSpec("recolour", star, colour="cyan"),
            _scene((1, 1, "star", "cyan"), (2, 1, "ring", "blue")),
            "is not where the red star was",
        ),
        (EditSpec("remove", star), Scene(64, 128, "white"), r"source's size, 96x96"),
        (EditSpec("background", background="grey"), scene, "expected a grey background, found white"),
    ]
    for spec, outcome, reason in cases:
        verdict = check_edit(scene, render(outcome), spec)
        assert not verdict.ok and reason in verdict.reason


def test_every_category_was_judged():
    assert {row["category"] for row in CAPTIONS} == set(CATEGORIES["generation"])
    assert {row["category"] for row in EDITS} == set(CATEGORIES["editing"])
