"""What the plug-in makes of requests, on a stand-in for lmms-eval's base class; test_lmms_eval.py has the real one."""

from __future__ import annotations

import importlib
import json
import sys
import types
from pathlib import Path

import pytest
from PIL import Image

from damaged_weights import damaged
from helpers import picture
from toy_family import save_toy
from wallaroo_hf.evaluation.answers import answer

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


class StandIn:
    """What the plug-in has of `lmms_eval.api.model.lmms`."""

    def __init__(self):
        self.kept = []
        self.cache_hook = types.SimpleNamespace(add_partial=lambda *entry: self.kept.append(entry))
        self.task_dict = {}


@pytest.fixture
def plugin(monkeypatch):
    """The module, on top of the stand-in."""
    for name in ("lmms_eval", "lmms_eval.api", "lmms_eval.api.model"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["lmms_eval.api.model"].lmms = StandIn
    name = "wallaroo_hf.evaluation.lmms_eval_model"
    monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module(name)
    sys.modules.pop(name, None)


@pytest.fixture
def examinee(plugin, compact, tmp_path):
    """Makes the model with arguments, and hands it requests of `(words, pictures, settings)`."""

    def ask(requests, **arguments):
        subject = plugin.WallarooLmmsEval(
            str(compact.folder), device="cpu", dtype="float32", output_dir=str(tmp_path / "made"), **arguments
        )
        subject.processor.buckets = [(32, 32), (32, 48), (48, 32)]
        subject.task_dict = {"task": {"test": [pictures for _, pictures, _ in requests]}}
        given = [
            types.SimpleNamespace(args=(words, settings, lambda doc: doc, index, "task", "test"))
            for index, (words, _, settings) in enumerate(requests)
        ]
        results = subject.generate_until(given)
        assert sorted(entry[2] for entry in subject.kept) == sorted(results)
        return results

    return ask


def test_the_entry_point_names_a_function():
    from wallaroo_hf.evaluation import lmms_eval_plugin

    lines = PROJECT.read_text(encoding="utf-8").split('[project.entry-points."lmms_eval.models"]\n')[1]
    assert lines.startswith(f'wallaroo = "{lmms_eval_plugin.__name__}:{lmms_eval_plugin.manifest.__name__}"\n')


def test_answers_are_in_the_order_of_requests(examinee, compact):
    """Settings differ, so batches are not made of neighbours; pictures stand where the words mark them."""
    first, second = picture(1), picture(2, 64, 80)
    short, long = {"max_new_tokens": 3, "until": ["\n\n"], "temperature": 0}, {"max_new_tokens": 6, "do_sample": False}
    requests = [
        ("What is it?", [first], short),
        ("Hello, who are you?", None, long),
        ("Compare <image> with <image>.", [first, second], short),
    ]
    answers = examinee(requests, batch_size=2)
    questions = [([first, "What is it?"], 3), (["Hello, who are you?"], 6)]
    questions.append((["Compare", first, "with", second, "."], 3))
    for (question, length), given in zip(questions, answers, strict=True):
        expected = answer(compact.model, compact.processor, [question], do_sample=False, max_new_tokens=length)
        assert given == expected[0]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, {"do_sample": False, "max_new_tokens": 512}),
        ({"temperature": 0.7, "top_p": 0.9}, {"do_sample": True, "temperature": 0.7, "top_p": 0.9}),
        ({"temperature": 0, "do_sample": True, "top_p": None}, {"do_sample": False}),
        ({"do_sample": False, "temperature": 0.7, "top_k": 5, "num_beams": 1}, {"do_sample": False, "num_beams": 1}),
    ],
)
def test_settings_of_tasks(plugin, compact, settings, wanted, caplog):
    subject = plugin.WallarooLmmsEval(str(compact.folder), device="cpu")
    given = subject._answering({**settings, "image_aspect_ratio": "pad"})
    assert given == {"max_new_tokens": 512, **wanted}
    subject._answering({"image_aspect_ratio": "pad"})
    assert caplog.text.count("image_aspect_ratio") == 1  # told of once, not passed on


def test_drawings_and_edits_are_json_with_paths(examinee):
    """Drawings and edits in one task; each has its document's seed, whatever batch it is in."""
    requests = [
        ("make it blue", [picture(1, 60, 45)], {}),
        ("a red star", [], {"max_new_tokens": 512}),
        ("make it <image> green", [picture(2, 64, 80)], {}),
        ("a red star", None, {}),
    ]
    settings = {"mode": "drawing", "source_fit": "pad", "resolution": 32, "seed": 5, "template": "random"}

    def bytes_of(results):
        return [Path(json.loads(result)["images"][0]).read_bytes() for result in results]

    results = examinee(requests, batch_size=4, **settings)
    sizes = [Image.open(json.loads(result)["images"][0]).size for result in results]
    assert sizes == [(60, 45), (32, 32), (64, 80), (32, 32)]
    drawn = bytes_of(results)
    assert drawn[1] != drawn[3] and bytes_of(examinee(requests, batch_size=1, **settings)) == drawn


def test_an_edit_has_one_source(examinee):
    with pytest.raises(ValueError, match="2 pictures to draw from, but an edit has one"):
        examinee([("mix them", [picture(1), picture(2)], {})], mode="drawing", resolution=32)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"mode": "painting"}, "mode"),
        ({"top_p": 2.0}, "`top_p` is 2.0, but must be a number above 0 and at most 1"),
        ({"temperature": 0}, "above 0"),
        ({"guidance_min_p": 2}, "from 0"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_loaded(plugin, compact, arguments, words, monkeypatch):
    monkeypatch.delattr(plugin, "load")
    with pytest.raises(ValueError, match=words):
        plugin.WallarooLmmsEval(str(compact.folder), device="cpu", **arguments)


def test_marks_without_pictures_are_refused(plugin):
    with pytest.raises(ValueError, match="marks 2 pictures, but has 1"):
        plugin._interleave("<image> and <image>", [picture(1)])


def test_answers_end_where_the_task_stops(plugin):
    assert plugin._cut("yes ASSISTANT: no", ["ASSISTANT:"]) == "yes"


def test_other_kinds_of_task_are_refused(plugin, compact):
    subject = plugin.WallarooLmmsEval(str(compact.folder), device="cpu")
    for method in (subject.loglikelihood, subject.generate_until_multi_round):
        with pytest.raises(NotImplementedError, match="generate_until"):
            method([])


@pytest.mark.parametrize(("damage", "words"), [("missing", "is missing"), ("nan", "is not finite")])
def test_damaged_checkpoints_are_refused(plugin, compact, tmp_path, damage, words):
    folder = damaged(compact.folder, tmp_path / "bad", damage)
    with pytest.raises(ValueError, match=words):
        plugin.WallarooLmmsEval(str(folder), device="cpu")
    if damage == "nan":
        plugin.WallarooLmmsEval(str(folder), device="cpu", check_weights=False)


def test_another_family_answers_and_draws_only_by_a_recipe(plugin, tmp_path):
    folder = save_toy(tmp_path / "toy")
    subject = plugin.WallarooLmmsEval(folder, device="cpu")
    subject.task_dict = {"task": {"test": [None]}}
    request = types.SimpleNamespace(args=("What is it?", {}, lambda doc: doc, 0, "task", "test"))
    assert subject.generate_until([request]) == ["ok"]
    with pytest.raises(ValueError, match="Toy has no recipe for imgedit"):
        plugin.WallarooLmmsEval(folder, mode="drawing", device="cpu")
    with pytest.raises(ValueError, match="no setting `top_k`; it has `num_inference_steps`"):
        plugin.WallarooLmmsEval(folder, device="cpu", top_k=5)
