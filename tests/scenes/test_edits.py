"""Several edits of one picture at once."""

from __future__ import annotations

import random

from wallaroo_hf.scenes import render
from wallaroo_hf.scenes.edits import plan_edits, say_edit, say_edits
from wallaroo_hf.scenes.phrases import Speaker
from wallaroo_hf.scenes.verify import check_edit

SHARES = {"recolour": 3.0, "replace": 3.0, "move": 1.0, "remove": 1.0, "add": 0.5, "background": 0.5}


def test_edits_that_are_made_at_once_are_each_made():
    rng = random.Random(0)
    for _ in range(100):
        plans, target = plan_edits(rng, SHARES, 3, (96, 96), 4)
        assert len(plans) == 3 and len({plan.scene for plan in plans}) == 1
        scene = plans[0].scene
        for plan in plans:  # each alone is what its instruction says, and its part of the whole
            assert check_edit(scene, render(plan.target), plan.spec.to_dict())
            assert set(plan.target.objects) - set(scene.objects) <= set(target.objects)
            assert not (set(scene.objects) - set(plan.target.objects)) & set(target.objects)
        changed = {thing for plan in plans for thing in set(scene.objects) ^ set(plan.target.objects)}
        assert set(scene.objects) ^ set(target.objects) == changed
        backgrounds = {plan.target.background for plan in plans} - {scene.background}
        assert target.background == (backgrounds.pop() if backgrounds else scene.background)


def test_several_instructions_are_one_sentence():
    plans, _ = plan_edits(random.Random(1), {"recolour": 1.0}, 2, (96, 96), 3)
    specs = [plan.spec for plan in plans]
    first, second = (say_edit(spec, Speaker("en")) for spec in specs)
    assert say_edits(specs, Speaker("en")) == f"{first}, {second}"
    assert say_edits(specs[:1], Speaker("zh")) == say_edit(specs[0], Speaker("zh"))
    assert "，" in say_edits(specs, Speaker("zh"))
