"""Items are dealt out evenly, come from their split, and are judged by what they ask for."""

import collections
import dataclasses
import random

import pytest

import scene_changes as changes
from wallaroo_hf.evaluation.items import ALL_TASKS, NUM_OBJECTS, TASKS, items_hash, prompt_items, scene_items
from wallaroo_hf.scenes import Prompt, Scene, make_composition, render
from wallaroo_hf.scenes.chats import CHAT_TURNS
from wallaroo_hf.scenes.compositions import COMPOSITIONS
from wallaroo_hf.scenes.scene import SIZES
from wallaroo_hf.scenes.splits import Combination, admits
from wallaroo_hf.scenes.tasks import CATEGORIES


@pytest.mark.parametrize("task", ALL_TASKS)
def test_categories_languages_and_sizes_come_in_turn(task):
    categories = {
        **CATEGORIES,
        "reconstruction": NUM_OBJECTS,
        "chat": CHAT_TURNS,
        "composition": tuple(COMPOSITIONS),
    }[task]
    languages = (None,) if task == "reconstruction" else ("en", "zh")
    whole = len(categories) * len(languages) * len(SIZES)
    items = scene_items(task, whole)
    cells = {(item.category, item.language, (item.height, item.width)) for item in items}
    assert cells == {(category, language, size) for category in categories for language in languages for size in SIZES}
    turn = collections.Counter((item.category, item.language) for item in items[: whole // len(SIZES)])
    assert len(turn) == whole // len(SIZES)
    assert scene_items(task, 5) == items[:5]
    assert {item.task for item in items} == {task} and len({item.name for item in items}) == whole
    assert len({item.seed for item in items}) == whole
    for other in (scene_items(task, 5, seed=1), scene_items(task, 5, "validation")):
        assert items_hash(other) != items_hash(items[:5])


@pytest.mark.parametrize("split", ["test", "validation"])
def test_items_are_of_their_split(split, examinee):
    for task in TASKS[1:]:
        for item in scene_items(task, 12, split, seed=3):
            combinations = examinee.row(item)["combinations"]
            main, others = ([Combination(*one) for one in combinations[key]] for key in ("main", "others"))
            assert admits(split, main, others) or item.category == "talk"
    for item in scene_items("reconstruction", 12, split, seed=3):
        combinations = [Combination(thing.shape, thing.colour, "describe") for thing in item.scene.objects]
        assert admits(split, combinations) and item.category == NUM_OBJECTS[len(combinations) - 1]


def test_items_say_what_decides_them():
    item = scene_items("editing", 1)[0]
    other = dataclasses.replace(item, seed=item.seed + 1)
    assert items_hash([item]) != items_hash([other]) != items_hash([other, item])
    assert item.to_dict()["scene"] == item.scene.to_dict() and item.size == "96x96"


@pytest.mark.parametrize("change", ["reshape", "recolour", "displace", "remove", "add", "repaint"])
def test_a_reconstruction_shows_the_same_scene(change):
    rng = random.Random(0)
    for item in scene_items("reconstruction", 12):
        assert item.judge(render(item.scene))
        assert item.judge(changes.tokenizer_like(item.scene, 0))
        changed = getattr(changes, change)(rng, item.scene, item.scene.objects[0])
        assert not item.judge(render(changed))
    with pytest.raises(TypeError, match="judged by a picture"):
        item.judge("a red circle")


def test_prompts_of_ones_own_keep_their_order():
    rows = [item.prompt for task in ("editing", "generation") for item in scene_items(task, 2)]
    own = Prompt.from_dict({"task": "generation", "prompt": "一颗星", "spec": {"objects": [{"shape": "star"}]}})
    items = prompt_items([*rows, own], seed=1)
    assert list(items) == ["generation", "editing"]
    assert [item.prompt for item in items["generation"]] == [*rows[2:], own]
    last = items["generation"][-1]
    assert (last.language, last.category, last.size, last.scene) == ("zh", "other", "96x96", None)
    assert prompt_items([own], seed=2)["generation"][0].seed != prompt_items([own], seed=1)["generation"][0].seed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("drawing", 1), "reconstruction"), (("editing", 1, "dev"), "validation"), (("editing", 0), "at least 1")],
)
def test_refusals(arguments, words):
    with pytest.raises(ValueError, match=words):
        scene_items(*arguments)


def test_a_chat_is_judged_by_its_pieces():
    item = scene_items("chat", 1)[0]
    with pytest.raises(TypeError, match="judged by pieces, not by str"):
        item.judge("Here it is.")
    with pytest.raises(TypeError, match="judged by one, not by list"):
        scene_items("generation", 1)[0].judge(["Here it is."])
    assert not item.judge(["Here it is."]) and item.to_dict()["messages"] == item.chat["messages"]


def test_compositions_are_judged_as_edits_of_the_second_picture():
    for item in scene_items("composition", 24):
        row = make_composition(0, int(item.name[-4:]), "test", item.category, item.language, (item.height, item.width))
        assert item.prompt.prompt == row["prompt"] and [one.to_dict() for one in item.references] == row["shown"][:1]
        assert item.judge(render(Scene.from_dict(row["target_scene"]))) and not item.judge(render(item.scene))
        assert item.to_dict()["references"] == row["shown"][:1]
    assert "references" not in scene_items("editing", 1)[0].to_dict()
