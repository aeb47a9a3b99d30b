"""Rows: their format, their words, and that each one's own answer is the right one."""

import hashlib
import json
import re

import pytest

from wallaroo_hf.scenes import Prompt, Scene, make_row, render_array, render_row, row_scenes
from wallaroo_hf.scenes.dataset import DATA_VERSION
from wallaroo_hf.scenes.phrases import Speaker, describe
from wallaroo_hf.scenes.scene import SIZES, SceneObject
from wallaroo_hf.scenes.splits import SPLITS
from wallaroo_hf.scenes.tasks import CATEGORIES, TASKS
from wallaroo_hf.scenes.verify import check_caption, check_edit

CELLS = [(task, category) for task, categories in CATEGORIES.items() for category in categories]
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def _rows(number, *args, **kwargs):
    return [make_row(0, index, *args, **kwargs) for index in range(number)]


def _texts(row):
    return [part["text"] for turn in row["messages"] for part in turn["content"] if part["type"] == "text"]


@pytest.mark.parametrize(("task", "category"), CELLS)
def test_rows_have_the_promised_form(task, category):
    for row in _rows(10, "train", task, category):
        assert json.loads(json.dumps(row)) == row
        assert (row["task"], row["category"]) == (task, category)
        roles = [turn["role"] for turn in row["messages"]]
        assert roles == (["user", "assistant"] * 2 if category == "follow_up" else ["user", "assistant"])
        asked, given = row["messages"][-2]["content"], row["messages"][-1]["content"]
        assert asked[-1] == {"type": "text", "text": row["prompt"]}
        assert (asked[0]["type"] == "image") == (row["scene"] is not None)
        kinds = {"understanding": ["text"], "interleaved": ["text", "image", "text"]}.get(task, ["image"])
        assert [part["type"] for part in given] == kinds
        assert ("image" in kinds) == (row["target_scene"] is not None)
        placeholders = sum(part["type"] == "image" for turn in row["messages"] for part in turn["content"])
        images = render_row(row)["images"]
        assert [(image.height, image.width) for image in images] == [(s.height, s.width) for s in row_scenes(row)]
        assert len(images) == placeholders and all(size in SIZES for size in {(i.height, i.width) for i in images})
        assert all(bool(CHINESE.search(text)) == (row["language"] == "zh") for text in _texts(row))
        assert all(
            text.strip() and "{" not in text and "None" not in text and "  " not in text for text in _texts(row)
        )


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("task", ["understanding", "generation", "editing"])
def test_the_own_answer_is_right(task, language):
    rows = [row for split in ("train", "test") for row in _rows(90, split, task, language=language)]
    for row in rows:
        prompt = Prompt.from_dict(row)
        answer = row["messages"][-1]["content"][0]
        verdict = prompt.judge(answer["text"] if task == "understanding" else render_row(row)["images"][-1])
        assert verdict, (row, verdict)


def test_interleaved_rows_draw_what_was_asked_and_say_what_they_drew():
    for row in _rows(60, "train", "interleaved"):
        image = render_row(row)["images"][-1]
        if row["category"] == "draw":
            assert check_caption(image, row["spec"])
        else:
            assert check_edit(row["scene"], image, row["spec"])
        told = row["messages"][-1]["content"][-1]["text"]
        assert told == describe(Scene.from_dict(row["target_scene"]), row["language"])
        if row["category"] == "follow_up":  # the picture of the first turn is shown again with the second
            assert row["messages"][1]["content"][0]["text"].endswith(
                describe(Scene.from_dict(row["scene"]), row["language"])
            )


def test_rows_depend_on_their_arguments_alone():
    assert make_row(0, 5) == make_row(0, 5)
    rows = {json.dumps(make_row(*args)) for args in ((0, 5), (1, 5), (0, 6), (0, 5, "test"), (0, 5, "validation"))}
    assert len(rows) == 5


def test_rows_are_the_same_everywhere():
    """On every machine and Python. A change that breaks this needs a new `dataset.DATA_VERSION`."""
    rows = [make_row(0, index, split, *cell) for index, split in enumerate(SPLITS) for cell in CELLS]
    text = json.dumps([rows, [render_array(row_scenes(row)[-1]).tolist() for row in rows[:8]]])
    assert (DATA_VERSION, hashlib.sha256(text.encode()).hexdigest()[:16]) == ("1.1.0", "31a66be2cdd2d8e2")


def test_tasks_come_by_weight():
    rows = [make_row(0, index, task_weights={"generation": 3, "editing": 1}) for index in range(200)]
    counts = {task: sum(row["task"] == task for row in rows) for task in TASKS}
    assert counts["understanding"] == counts["interleaved"] == 0 and 130 < counts["generation"] < 170
    languages = [row["language"] for row in rows]
    assert 80 < languages.count("zh") < 120


@pytest.mark.parametrize("language", ["en", "zh"])
def test_phrasings_are_many_and_words_few(language):
    frames, words = set(), set()
    for row in _rows(800, "train", "generation", language=language):
        names = r"\b(red|green|blue|yellow|orange|purple|pink|cyan|violet|turquoise)\b" if language == "en" else r".色"
        frames.add(re.sub(names, "C", row["prompt"].lower()))
        words |= set(re.findall(r"[a-z]+" if language == "en" else r".", row["prompt"].lower()))
    assert len(frames) > 550
    assert len(words) < 130


def test_no_test_prompt_is_a_training_prompt():
    """Where the words name what is held out; "how many objects are there?" is asked of new pictures instead."""
    for category in CATEGORIES["generation"]:
        trained = {row["prompt"].lower().strip(".。") for row in _rows(500, "train", "generation", category)}
        tested = {row["prompt"].lower().strip(".。") for row in _rows(80, "test", "generation", category)}
        assert not trained & tested


def test_captions_leave_open_only_what_varies():
    """A caption without a colour is drawn in many, one without a background on all."""
    rows = _rows(300, "train", "generation", "single_object")
    assert len({thing["colour"] for row in rows for thing in row["target_scene"]["objects"]}) == 8
    open_rows = [row for row in rows if "background" not in row["spec"]]
    assert len(open_rows) > 150 and len({row["target_scene"]["background"] for row in open_rows}) == 4


def test_half_of_the_additions_name_a_place():
    rows = _rows(300, "train", "editing", "add")
    share = sum("place" in row["spec"] or "direction" in row["spec"] for row in rows) / len(rows)
    assert 0.4 < share < 0.6


def test_edits_change_one_thing():
    for row in _rows(200, "train", "editing"):
        scene, target = row_scenes(row)
        assert (scene.height, scene.width) == (target.height, target.width) and scene != target
        changed = len(set(scene.objects) ^ set(target.objects))
        assert changed == {"add": 1, "remove": 1, "background": 0}.get(row["category"], 2)
        assert (scene.background != target.background) == (row["category"] == "background")


def test_descriptions_list_all_in_reading_order():
    scene = Scene(
        96, 96, "grey",
        (SceneObject(2, 0, "heart", "red"), SceneObject(0, 2, "cross", "orange"), SceneObject(2, 1, "cross", "orange")),
    )  # fmt: skip
    assert describe(scene, "en") == "Two orange crosses and a red heart on a grey background."
    assert describe(scene, "zh") == "灰色背景上有两个橙色的十字和一个红色的心形。"
    empty = Scene(96, 96, "white")
    assert describe(empty, "en") == "Nothing on a white background." and describe(empty, "zh") == "只有白色背景。"


def test_a_speaker_without_chance_takes_the_first_words():
    assert Speaker("en").some("cross", "orange") == "an orange cross"
    assert Speaker("en").some("cross", "orange", 3) == "three orange crosses"
    assert Speaker("zh").some("star", None, 2) == "两个星星"
    assert Speaker("en").listed(["a", "b", "c"]) == "a, b and c" and Speaker("zh").listed(["甲", "乙"]) == "甲和乙"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "dev"}, "unknown split 'dev': use one of train, validation, test"),
        ({"task": "draw"}, "unknown task 'draw'"),
        ({"task": "editing", "category": "counting"}, "unknown category of the task 'editing' 'counting'"),
        ({"language": "fr"}, "unknown language 'fr'"),
    ],
)
def test_unknown_names_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_row(0, 0, **arguments)
