"""Paradigms side by side: a whole comparison of two steps each, what goes on, what is refused, and what is added up."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

pytest.importorskip("diffusers", reason="two of the families are built of it")
pytest.importorskip("matplotlib", reason="curves are drawn by it")

from commands import run
from wallaroo_hf.evaluation.paradigms import (
    ParadigmResults,
    ParadigmSettings,
    base_model,
    compare_paradigms,
    paradigm_runs,
    paradigms_table,
    read_budget,
    verify_paradigms,
)
from wallaroo_hf.evaluation.paradigms.measured_training import StepCost
from wallaroo_hf.evaluation.paradigms.paradigm_results import at_flops, reached
from wallaroo_hf.training.scenes.scene_builder import OutOfTime
from wallaroo_hf.training.stopping import StopWhenAsked

# Two steps of a second and a thousand operations, whatever the machine.
SETTINGS = ParadigmSettings(budget=2.0, judged=6, looks=1, looked_at=2, batch_size=2, together=2)
NAMES = ("wallaroo", "showo2", "hieraquery")


@pytest.fixture(scope="module")
def timed():
    """Steps are said to take a second, and are not measured."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (base_model, paradigm_runs):
            patch.setattr(module, "measure_step", lambda *_: StepCost(1.0, 1000.0))
        yield


@pytest.fixture(scope="module")
def compared(timed, tmp_path_factory):
    """A comparison of all three, and its folder. Nobody changes it."""
    folder = tmp_path_factory.mktemp("paradigms") / "out"
    return compare_paradigms(folder, SETTINGS, seeds=1, device="cpu"), folder


def test_all_grow_from_one_model_and_are_judged_alike(compared):
    results, folder = compared
    assert tuple(results.runs) == NAMES and results.num_seeds == 1
    assert {len(runs[0]["values"]["generation"]["right"]) for runs in results.runs.values()} == {6}
    for name in NAMES:
        (found,) = results.runs[name]
        assert found["steps"] == 2 and found["flops"] == 2000.0 and [one["step"] for one in found["looks"]] == [2]
        assert found["seconds"] > 0 and found["drawing_costs"]["flops"] > 0
        assert all(count >= 1 for count in found["drawing_costs"]["forwards"].values())
    described = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["families"]
    assert results.parameters_agree
    assert described["hieraquery"]["parameters"]["frozen"] > described["wallaroo"]["parameters"]["frozen"] > 0
    assert described["showo2"]["parameters"]["frozen"] == 0
    assert "edits right" in str((folder / "paradigms.md").read_text(encoding="utf-8"))
    assert paradigms_table(results).row_count > 10
    for name in ("curves.png", "pictures.png", "results.json"):
        assert (folder / name).stat().st_size > 0


def test_what_is_there_is_not_made_again(compared, monkeypatch):
    results, folder = compared
    monkeypatch.setattr(paradigm_runs, "train_course", lambda *_: pytest.fail("it was trained again"))
    again = compare_paradigms(folder, SETTINGS, seeds=1, device="cpu")
    assert again.to_dict() == results.to_dict()
    assert verify_paradigms(folder) == 3
    with pytest.raises(ValueError, match=r"was made with other settings .*judged 6, now 7"):
        compare_paradigms(folder, dataclasses.replace(SETTINGS, judged=7), seeds=1, device="cpu")


def test_who_is_stopped_goes_on_to_the_same_numbers(compared, tmp_path):
    """With the language model that is there: stopped after the first step of the first family."""
    results, folder = compared
    shutil.copytree(folder / "base", tmp_path / "base")
    stop = StopWhenAsked()

    def after_one(what, done, total):
        stop.was_asked = stop.was_asked or (what.endswith("seed 0: steps") and done == 1)

    with pytest.raises(OutOfTime):
        compare_paradigms(tmp_path, SETTINGS, ("wallaroo",), 1, "cpu", after_one, stop)
    assert not (tmp_path / "wallaroo" / "seed-0" / "final").exists()
    found = compare_paradigms(tmp_path, SETTINGS, ("wallaroo",), 1, "cpu")
    assert found.runs["wallaroo"][0]["values"] == results.runs["wallaroo"][0]["values"]
    assert found.runs["wallaroo"][0]["losses"] == results.runs["wallaroo"][0]["losses"]


def test_files_that_changed_are_named(compared, tmp_path):
    _, folder = compared
    shutil.copytree(folder, tmp_path / "out")
    run_folder = tmp_path / "out" / "wallaroo" / "seed-0"
    with (run_folder / "scores" / "items.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n")
    with pytest.raises(ValueError, match=r"items\.jsonl is not what was judged"):
        verify_paradigms(tmp_path / "out")
    (run_folder / "scores" / "items.jsonl").unlink()
    assert "items.jsonl is missing" in run("evaluate", "paradigms", "-o", tmp_path / "out", "--verify", code=1)
    assert "has no manifest.json" in run("evaluate", "paradigms", "-o", tmp_path, "--verify", code=1)


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200.0), ("1h30m", 5400.0), ("45s", 45.0), ("0.5h", 1800.0), (" 90M ", 5400.0)]
)
def test_budgets_are_times(text, seconds):
    assert read_budget(text) == seconds


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--budget", "2"), "must be a time of at least a second"),
        (("--budget", "0.1s"), "must be a time of at least a second"),
        (("--families", "wallaroo,janus"), "There is no paradigm 'janus'"),
        (("--size", "64"), "must be HEIGHTxWIDTH"),
        (("--size", "60x64"), "must be multiples of 16"),
        (("--size", "96x96"), "are 64x64 here"),
        (("--batch-size", "30", "--together", "8"), "do not divide"),
        (("--data", "rows.jsonl"), "give prompts to judge too"),
        (("--families", "wallaroo", "--dit", "sana"), "is built from `dit`"),
    ],
)
def test_mistakes_are_sentences(tmp_path, options, words):
    said = " ".join(run("evaluate", "paradigms", "-o", tmp_path / "out", *options, code=1).split())
    assert words in said and not (tmp_path / "out" / "manifest.json").exists()


def _run(right, looks, steps=100):
    looked = [{"step": at, "seconds": at / 2, "flops": at * 10.0, "right": share} for at, share in looks]
    return {
        "steps": steps,
        "seconds": 50.0,
        "flops": steps * 10.0,
        "looks": looked,
        "values": {"generation": {"right": right, "count": [0.0] * len(right)}},
        "drawing_costs": {"seconds": 1.0, "flops": 5.0, "forwards": {"model": 3}},
    }


def test_when_goals_were_reached():
    found = _run([1.0], [(50, 0.4), (75, 0.6), (100, 0.55)])
    assert reached(found, 0.5) == {"step": 75, "seconds": 37.5, "flops": 750.0} and reached(found, 0.8) is None
    assert at_flops(found, 500.0) == 0.4 and at_flops(found, 625.0) == pytest.approx(0.5)
    assert at_flops(found, 250.0) == pytest.approx(0.2) and at_flops(found, 9e9) == 0.55


def test_families_are_compared_on_the_same_items(compared):
    results, _ = compared
    items = {"generation": [dataclasses.replace(one, category="x") for one in _items(4)]}
    runs = {
        "a": [_run([1.0, 1.0, 1.0, 0.0], [(100, 0.75)]), _run([1.0, 1.0, 0.0, 0.0], [(100, 0.5)])],
        "b": [_run([0.0, 0.0, 1.0, 0.0], [(200, 0.25)], 200), _run([0.0, 0.0, 0.0, 0.0], [(200, 0.0)], 200)],
    }
    described = dict.fromkeys(runs, results.families["wallaroo"])
    made = ParadigmResults(results.settings, described, items, runs, None)
    assert made.mean("a", "generation").value == pytest.approx(0.625)
    difference = made.difference("a", "b", "generation")
    assert difference.value == pytest.approx(0.5) and difference.by_seed == (0.5, 0.5)
    assert made.difference("a", "b", "editing") is None and made.least_flops == 1000.0
    told = made.to_dict()["families"]["b"]
    assert told["drawing_at_least_flops"]["value"] == pytest.approx((0.125 + 0.0) / 2)
    assert told["reached"]["0.5"]["step"] == [None, None]


def _items(count):
    from wallaroo_hf.evaluation.family_ablations.few_rows import few_items

    return few_items(count, "test")
