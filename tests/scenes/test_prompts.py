"""Prompt files: what they may hold, and what is said about what they must not."""

import json
import re

import pytest

from wallaroo_hf.scenes import Prompt, SceneDataset, prompts, read_prompts, render, render_row
from wallaroo_hf.scenes.geometry import DIRECTIONS, PLACES
from wallaroo_hf.scenes.palette import BACKGROUNDS, COLOURS
from wallaroo_hf.scenes.scene import Scene
from wallaroo_hf.scenes.shapes import SHAPES
from wallaroo_hf.scenes.specs import AnswerSpec, CaptionSpec, EditSpec

SCENE = {
    "height": 96, "width": 96, "background": "white",
    "objects": [
        {"shape": "star", "colour": "red", "row": 0, "col": 2}, {"shape": "ring", "colour": "blue", "row": 1, "col": 1},
    ],
}  # fmt: skip
QUESTION = {
    "task": "understanding",
    "prompt": "what colour is the star?",
    "scene": SCENE,
    "spec": {"kind": "colour", "value": "red"},
}
DRAWING = {"task": "generation", "prompt": "两个红色的星星", "spec": {"objects": [{"shape": "star", "count": 2}]}}
EDIT = {
    "task": "editing",
    "prompt": "remove the star",
    "scene": SCENE,
    "spec": {"operation": "remove", "object": {"shape": "star"}},
}


def test_a_file_is_read(tmp_path):
    path = tmp_path / "prompts.jsonl"
    lines = [QUESTION, {**DRAWING, "height": 64, "width": 128, "category": "counting"}, EDIT]
    path.write_text("\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    question, drawing, edit = read_prompts(path)
    assert (drawing.height, drawing.width, drawing.language, drawing.category) == (64, 128, "zh", "counting")
    assert (question.height, question.width, question.language, question.category) == (96, 96, "en", "other")
    assert question.judge("It is red.") and not question.judge("blue")
    assert not drawing.judge(render(question.scene))
    assert edit.judge(render(Scene(96, 96, "white", edit.scene.objects[1:])))
    for prompt in (question, drawing, edit):
        assert Prompt.from_dict(json.loads(json.dumps(prompt.to_dict()))) == prompt
    assert Prompt.from_dict(DRAWING).height == 96


def test_the_examples_of_the_documentation_are_right():
    text = re.sub(r"\n +(?=\S)", " ", prompts.__doc__.replace("{...}", json.dumps(SCENE)))
    examples = [
        json.loads(line) for line in re.findall(r'\{"task".*\}(?=\s|$)', text.replace(' {"task"', '\n{"task"'))
    ]
    assert [Prompt.from_dict(example).task for example in examples] == ["generation"] * 2 + [
        "understanding",
        "editing",
    ]


def test_the_names_of_the_documentation_are_all_names():
    for name in (*SHAPES, *COLOURS, *BACKGROUNDS, *DIRECTIONS, *PLACES):
        assert re.search(rf"\b{name}\b", prompts.__doc__), name


def test_rows_of_the_data_set_are_prompts():
    for row in SceneDataset("test", 60, tasks=["understanding", "generation", "editing"], images=False):
        prompt = Prompt.from_dict(row)
        assert (prompt.task, prompt.category, prompt.language) == (row["task"], row["category"], row["language"])
        assert prompt == Prompt.from_dict(json.loads(json.dumps(prompt.to_dict())))
        shown = row["scene"] or row["target_scene"]
        assert (prompt.height, prompt.width) == (shown["height"], shown["width"])
        if prompt.task != "understanding":
            assert prompt.judge(render_row(row)["images"][-1])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"prompt": "a"}, "needs the keys task, prompt and spec"),
        ({**DRAWING, "size": 96}, "has no key 'size'"),
        ({**DRAWING, "task": "drawing"}, "unknown task 'drawing'"),
        ({**DRAWING, "prompt": " "}, "a text that is not empty"),
        ({**DRAWING, "language": "fr"}, "unknown language 'fr'"),
        ({**DRAWING, "height": 100}, "multiples of 32"),
        ({**DRAWING, "scene": SCENE}, "takes no `scene`"),
        ({**DRAWING, "spec": {"objects": [{"shape": "stars"}]}}, "unknown shape 'stars'"),
        ({**DRAWING, "spec": {"objects": [{"size": 3}]}}, "unknown key 'size': it takes shape, colour, count, place"),
        ({**DRAWING, "spec": {}}, "lacks the key 'objects'"),
        ({**DRAWING, "spec": {"objects": [{"count": 0}]}}, "a whole number of at least 1, not 0"),
        ({**DRAWING, "spec": {"objects": [{}], "relations": [[0, "above", 1]]}}, r"indices of the 1 entries"),
        ({**DRAWING, "spec": {"objects": [{}, {}], "relations": [[0, "near", 1]]}}, "unknown direction 'near'"),
        ({**QUESTION, "scene": None}, "needs a `scene`"),
        ({**QUESTION, "height": 96}, "takes no `height`"),
        ({**QUESTION, "spec": {"kind": "colour", "value": "mauve"}}, "needs a value of that kind"),
        ({**QUESTION, "spec": {"kind": "objects", "objects": [{"shape": "star"}]}}, "objects with shape and colour"),
        ({**QUESTION, "spec": {"kind": "size", "value": 3}}, "unknown kind of answer 'size'"),
        ({**EDIT, "spec": {"operation": "shrink"}}, "unknown operation 'shrink'"),
        ({**EDIT, "spec": {"operation": "remove"}}, "takes object, but was given nothing"),
        ({**EDIT, "spec": {"operation": "recolour", "object": {}, "shape": "ring"}}, "takes object, colour, but"),
        ({**EDIT, "spec": {"operation": "move", "object": {"shape": "star"}, "direction": "above"}}, "together"),
        ({**EDIT, "spec": {"operation": "remove", "object": {"colour": "green"}}}, "fits 0 objects"),
        ({**EDIT, "spec": {"operation": "remove", "object": {}}}, "fits 2 objects"),
        (["a"], "needs the keys"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    path = tmp_path / "prompts.jsonl"
    path.write_text(f"\n{json.dumps(DRAWING)}\n{json.dumps(line)}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"prompts.jsonl, line 3: .*{message}"):
        read_prompts(path)


def test_files_without_prompts_are_refused(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(ValueError, match="has no prompts"):
        read_prompts(path)
    path.write_text("red star\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 1: "):
        read_prompts(path)
    with pytest.raises(FileNotFoundError):
        read_prompts(tmp_path / "none.jsonl")


def test_outputs_of_the_wrong_kind_are_refused():
    with pytest.raises(TypeError, match="judged by a text, not by Image"):
        Prompt.from_dict(QUESTION).judge(render(Scene.from_dict(SCENE)))
    with pytest.raises(TypeError, match="judged by a picture, not by str"):
        Prompt.from_dict(DRAWING).judge("a star")


def test_specifications_survive_json():
    for row in SceneDataset("train", 150, images=False):
        spec_class = {"understanding": AnswerSpec, "editing": EditSpec}.get(row["task"])
        spec_class = spec_class or (EditSpec if "operation" in row["spec"] else CaptionSpec)
        assert spec_class.from_dict(json.loads(json.dumps(row["spec"]))).to_dict() == row["spec"]
