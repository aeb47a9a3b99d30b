"""The benchmark: what is right counts as right, and nothing else does, whatever stops an evaluation on its way."""

import copy
import dataclasses
import json

import pytest
import torch
from PIL import Image

from examinees import blank
from wallaroo_hf.evaluation import TASKS, evaluate_scenes, scene_items
from wallaroo_hf.evaluation.drawing_settings import read_sampling
from wallaroo_hf.evaluation.identity import checkpoint_hash
from wallaroo_hf.evaluation.items import Item
from wallaroo_hf.evaluation.scenes import check_tasks
from wallaroo_hf.families.registry import abilities_of
from wallaroo_hf.scenes import Prompt, render


@pytest.fixture
def evaluate(compact, tmp_path):
    """An evaluation of the tiny model with few items."""

    def run(folder="out", model=None, **arguments):
        if "prompts" not in arguments:
            arguments = {"num_items_per_task": 12, **arguments}
        return evaluate_scenes(model or compact.model, compact.processor, tmp_path / folder, **arguments)

    return run


def overall(scores):
    return {task: scores.overall(task) for task in scores.tasks}


def test_who_gets_everything_right_scores_one(evaluate, examinee, tmp_path):
    scores = evaluate(num_items_per_task=36)
    assert overall(scores) == dict.fromkeys(TASKS, 1.0)
    for groups in scores.tasks.values():
        for breakdown in groups.values():
            every = [breakdown.overall, *breakdown.categories.values(), *breakdown.sizes.values()]
            assert {(score.value, score.low) for score in every} == {(1.0, 1.0)}
    written = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(scores.to_dict()))
    assert written["settings"]["num_items"] == dict.fromkeys(TASKS, 36) and written["settings"]["split"] == "test"
    assert len(list((tmp_path / "out" / "pictures").iterdir())) == 3 * 36 + 18  # every other chat ends in a picture
    for task in TASKS:
        Image.open(tmp_path / "out" / f"{task}.png").verify()


def test_empty_pictures_and_answers_score_nothing(evaluate, examinee):
    examinee.spoil = lambda item, output: blank(item)
    assert overall(evaluate(num_items_per_task=36)) == dict.fromkeys(TASKS, 0.0)


def test_an_edit_that_changes_nothing_or_redraws_another_object_is_wrong(evaluate, examinee):
    examinee.spoil = lambda item, output: render(item.scene)
    assert overall(evaluate(tasks=["editing"])) == {"editing": 0.0}

    def upside_down(item, output):
        return output.transpose(Image.Transpose.FLIP_TOP_BOTTOM).transpose(Image.Transpose.FLIP_LEFT_RIGHT)

    examinee.spoil = upside_down
    assert overall(evaluate("flipped", tasks=["editing"]))["editing"] < 0.2


def test_compositions_are_scored_where_they_are_asked_for(evaluate, examinee, compact, monkeypatch):
    examinee.spoil = lambda item, output: render(item.scene)
    examinee.right = lambda item: None
    assert overall(evaluate(tasks=["composition"])) == {"composition": 0.0}
    without = dataclasses.replace(abilities_of(compact.model, compact.processor), tasks=("image-editing",))
    with pytest.raises(ValueError, match="does not do edits of several pictures, so leave composition out"):
        check_tasks(without, {"composition": scene_items("composition", 1)})


def test_languages_categories_and_sizes_are_told_apart(evaluate, examinee):
    examinee.spoil = lambda item, output: output if item.language == "zh" and item.size == "96x96" else blank(item)
    scores = evaluate(num_items_per_task=36, tasks=["understanding"]).tasks["understanding"]
    assert scores["en"].overall.value == 0 and scores["zh"].overall.value == pytest.approx(1 / 3, abs=1e-6)
    assert scores["zh"].sizes["96x96"].value == 1 and scores["zh"].sizes["64x128"].value == 0
    examinee.spoil = lambda item, output: output if item.category == "move" else blank(item)
    scores = evaluate("moves", tasks=["editing"]).tasks["editing"]["all"]
    assert {name: score.value for name, score in scores.categories.items() if score.value} == {"move": 1}
    assert scores.overall.value == pytest.approx(1 / 6, abs=1e-6)


def test_goes_on_where_it_stopped(evaluate, examinee, tmp_path):
    """Stopped in the middle, and again with another batch size: the result is that of one go."""
    arguments = {"tasks": ["generation", "understanding"], "batch_size": 5}
    examinee.spoil = lambda item, output: output if int(item.name[-1]) % 3 else blank(item)
    evaluate("whole", **arguments)
    whole_run = examinee.asked
    for stop in (2, 3):
        calls = examinee.asked = []

        def spoil(item: Item, output, stop=stop, calls=calls):
            if len(calls) == stop:
                raise KeyboardInterrupt
            return output if int(item.name[-1]) % 3 else blank(item)

        examinee.spoil, right = spoil, examinee.spoil
        with pytest.raises(KeyboardInterrupt):
            evaluate(**arguments)
        examinee.spoil = right
        assert not (tmp_path / "out" / "scores.json").exists()
        arguments["batch_size"] = 2
    judged = len((tmp_path / "out" / "items.jsonl").read_text(encoding="utf-8").splitlines()) - 1
    assert judged == 5 + 2 * 2
    seen = []
    examinee.asked = []
    evaluate(**arguments, progress=lambda task, done, total: seen.append((task, done, total)))
    assert sum(map(len, examinee.asked)) == 24 - judged
    assert sorted(name for batch in whole_run for name in batch) == sorted(
        {name for batch in whole_run for name in batch}
    )
    assert seen[0] == ("generation", 9, 12) and seen[-1] == ("understanding", 12, 12)
    for name in ("scores.json", "generation.png", "understanding.png"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    examinee.asked = []
    evaluate(**arguments)
    assert not examinee.asked


def test_an_evaluation_goes_on_only_with_its_own_settings(evaluate, examinee, compact, tmp_path):
    arguments = {"tasks": ["generation"]}
    evaluate(**arguments)
    scores = (tmp_path / "out" / "scores.json").read_bytes()
    other = copy.deepcopy(compact.model)
    with torch.no_grad():
        other.lm_head.weight[0, 0] += 1
    for change, words in (
        ({"seed": 1}, "seed 0, now 1"),
        ({"guidance_scale": 1.5}, "guidance_scale 3.0, now 1.5"),
        ({"top_k": 0}, "top_k 1000, now 0"),
        ({"tasks": ["editing"]}, "tasks"),
        ({"split": "validation"}, "split"),
        ({"num_items_per_task": 13}, "num_items"),
        ({"model": other}, "checkpoint"),
    ):
        with pytest.raises(ValueError, match=words):
            evaluate(**{**arguments, **change})
        assert (tmp_path / "out" / "scores.json").read_bytes() == scores
    examinee.spoil = lambda item, output: blank(item)
    assert overall(evaluate(**arguments)) == {"generation": 1.0}
    assert overall(evaluate(**arguments, resume=False)) == {"generation": 0.0}


def test_prompts_of_ones_own(evaluate, examinee, tmp_path):
    prompts = [item.prompt for task in ("generation", "understanding") for item in scene_items(task, 3)]
    scores = evaluate(prompts=prompts)
    assert overall(scores) == {"generation": 1.0, "understanding": 1.0}
    assert scores.settings["split"] is None and scores.settings["num_items"] == {"generation": 3, "understanding": 3}
    assert list(evaluate("one", prompts=prompts, tasks=["generation"]).tasks) == ["generation"]
    with pytest.raises(ValueError, match="items"):  # another prompt, though as many
        evaluate(prompts=[*prompts[:-1], prompts[-2]])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tasks": ["drawing"]}, "drawing"),
        ({"tasks": []}, "none"),
        ({"batch_size": 0}, "at least 1"),
        ({"num_items_per_task": 0}, "at least 1"),
        ({"temperature": 0.0}, "above 0"),
        ({"top_k": -1}, "`top_k` is -1, but must be a whole number from 0 on"),
        ({"prompts": []}, "any task"),
        ({"prompts": "one", "tasks": ["reconstruction"]}, "reconstruction; they have generation"),
        ({"prompts": "one", "split": "validation"}, "leave them out"),
        ({"prompts": "one", "num_items_per_task": 3}, "leave them out"),
    ],
)
def test_refusals_leave_nothing_behind(evaluate, examinee, tmp_path, arguments, words):
    if arguments.get("prompts") == "one":
        prompt = Prompt.from_dict({"task": "generation", "prompt": "a star", "spec": {"objects": [{}]}})
        arguments = {**arguments, "prompts": [prompt]}
    with pytest.raises(ValueError, match=words):
        evaluate(**arguments)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_cannot_edit_is_not_asked_to(evaluate, examinee, model, tmp_path):
    model.config.has_editing = False
    with pytest.raises(ValueError, match="--tasks reconstruction,generation,understanding"):
        evaluate(model=model)
    assert not (tmp_path / "out").exists()
    assert list(evaluate(model=model, tasks=["generation"]).tasks) == ["generation"]


def test_a_checkpoint_for_squares_is_asked_for_squares(examinee, model, processor, tmp_path):
    processor.line_breaks = False
    items = scene_items("generation", 13)
    arguments = {"prompts": [item.prompt for item in items]}
    with pytest.raises(ValueError, match=r"64x128.*--tasks reconstruction,understanding"):
        evaluate_scenes(model, processor, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()
    arguments["prompts"].pop()
    assert overall(evaluate_scenes(model, processor, tmp_path / "out", **arguments)) == {"generation": 1.0}
    assert overall(
        evaluate_scenes(model, processor, tmp_path / "asked", tasks=["understanding"], num_items_per_task=13)
    )


def test_settings_default_to_the_checkpoints(model, processor):
    def read(**given):
        return read_sampling(abilities_of(model, processor), given)

    config = model.generation_config
    config.image_guidance_scale, config.image_temperature, config.image_top_k = 1.5, 0.8, None
    sampling = read()
    assert sampling.arguments() == {
        "guidance_scale": 1.5, "temperature": 0.8, "do_sample": True, "guidance_min_p": 0.0,
    }  # fmt: skip
    assert read(guidance_scale=2.0, temperature=0.5, top_k=0, guidance_min_p=0.1).arguments() == {
        "guidance_scale": 2.0, "temperature": 0.5, "top_k": 0, "do_sample": True, "guidance_min_p": 0.1,
    }  # fmt: skip
    config.image_guidance_min_p = 0.2
    assert read().guidance_min_p == 0.2 and read(guidance_min_p=0.0).guidance_min_p == 0
    with pytest.raises(ValueError, match=r"`guidance_min_p` is 1.5, but must be a number from 0"):
        read(guidance_min_p=1.5)
    del config.image_guidance_scale
    assert read().guidance_scale == 3.0


def test_a_hash_is_of_what_decides_outputs(compact, model, processor):
    whole = checkpoint_hash(compact.model, compact.processor)
    assert checkpoint_hash(model, processor) == whole
    model.generation_config.image_guidance_scale = 1.0  # recorded by itself
    processor(text=["a", "longer text"], return_tensors="pt", padding=True)
    assert checkpoint_hash(model, processor) == whole
    assert checkpoint_hash(copy.deepcopy(model).bfloat16(), processor) != whole
    processor.prompt_templates["generation"]["en"][0] = "{prompt}!"
    assert checkpoint_hash(model, processor) != whole
