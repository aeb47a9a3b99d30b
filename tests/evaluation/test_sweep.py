"""The sweep: every combination once, on validation items, and the best is told."""

import json

import pytest

from examinees import blank
from wallaroo_hf.evaluation import scene_items, sweep_sampling
from wallaroo_hf.evaluation import scenes as scenes_module
from wallaroo_hf.evaluation.sweep import save_choice
from wallaroo_hf.families.registry import abilities_of


@pytest.fixture
def sweep(compact, tmp_path, monkeypatch, examinee):
    """A sweep whose examinee gets Chinese right everywhere, and English only at scale 2 and temperature 0.8."""
    tried = []

    def produce(subject, batch):
        sampling = subject.sampling
        tried.append((sampling.guidance_scale, sampling.temperature, sampling.top_k, batch[0].task))
        good = (sampling.guidance_scale, sampling.temperature) == (2.0, 0.8)
        outputs = examinee(subject, batch)
        return [out if good or item.language == "zh" else blank(item) for item, out in zip(batch, outputs)]

    monkeypatch.setattr(scenes_module, "make_outputs", produce)

    def run(**arguments):
        tried.clear()
        settings = {"guidance_scales": [1.0, 2.0], "temperatures": [1.0, 0.8], "num_items_per_task": 12}
        settings["guidance_min_ps"] = [0.0]
        return sweep_sampling(compact.model, compact.processor, tmp_path / "sweep", **{**settings, **arguments}), tried

    return run


def test_tries_all_and_chooses_the_best(sweep, examinee, tmp_path):
    seen = []
    found, tried = sweep(progress=lambda done, total: seen.append((done, total)))
    assert [(entry.guidance_scale, entry.temperature) for entry in found.entries] == [
        (1.0, 1.0), (1.0, 0.8), (2.0, 1.0), (2.0, 0.8),
    ]  # fmt: skip
    assert [entry.mean for entry in found.entries] == [0.5, 0.5, 0.5, 1.0]
    assert found.best is found.entries[3] and set(found.best.scores) == {"generation", "editing"}
    assert seen == [(done, 4) for done in range(5)]
    validation = {item.name for task in ("generation", "editing") for item in scene_items(task, 12, "validation")}
    assert {name for batch in examinee.asked for name in batch} == validation
    assert found.settings["split"] == "validation"
    written = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert written == json.loads(json.dumps(found.to_dict()))
    choice = {"image_guidance_scale": 2.0, "image_guidance_min_p": 0.0, "image_temperature": 0.8, "image_top_k": 0}
    assert written["choice"] == choice
    assert written["entries"][3]["scores"]["editing"]["value"] == 1.0
    table = found.table()
    assert [row.style for row in table.rows] == [None, None, None, "bold"] and table.columns[3]._cells[0] == "all"
    again, tried = sweep(top_ks=[0, 5], tasks=["editing", "generation"])
    assert {top_k for _, _, top_k, _ in tried} == {5} and len(again.entries) == 8
    assert again.best.top_k == 0  # of equal ones the first


def test_tries_shares_where_there_is_guidance(sweep, compact):
    """Without, all are one and the same; the default tries two."""
    found, _ = sweep(temperatures=[0.8], guidance_min_ps=[0.0, 0.05, 0.2])
    assert [(entry.guidance_scale, entry.guidance_min_p) for entry in found.entries] == [
        (1.0, 0.0), (2.0, 0.0), (2.0, 0.05), (2.0, 0.2),
    ]  # fmt: skip
    assert found.table().columns[1]._cells == ["0", "0", "0.05", "0.2"]
    tried = {setting.name: setting.tried for setting in abilities_of(compact.model, compact.processor).settings}
    assert tried["guidance_min_p"] == (0.0, 0.2) and tried["guidance_scale"] == (1.0, 1.5, 2.0, 3.0)
    assert tried["temperature"] == (0.6, 0.8, 1.0) and tried["top_k"] == (0,)


def test_the_choice_can_be_kept_in_the_checkpoint(sweep, tmp_path):
    found, _ = sweep()
    with pytest.raises(ValueError, match="no generation_config"):
        save_choice(found, tmp_path)
    path = tmp_path / "generation_config.json"
    path.write_text('{"line_breaks": true, "image_top_k": 7}', encoding="utf-8")
    save_choice(found, tmp_path)
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert kept == {"line_breaks": True, **found.best.generation_config()}


def test_items_are_the_validation_splits(sweep, examinee):
    """By what is asked, not only by name."""
    rows_before = set(examinee.rows)
    sweep(guidance_scales=[1.0], temperatures=[1.0])
    asked = set(examinee.rows) - rows_before
    scene_items("editing", 12, "validation")
    assert asked == set(examinee.rows)
    scene_items("editing", 12, "test")
    assert asked != set(examinee.rows)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tasks": ["understanding"]}, "sample codes"),
        ({"tasks": []}, "nothing"),
        ({"top_ks": []}, "nothing to try"),
        ({"guidance_min_ps": []}, "nothing to try"),
        ({"guidance_min_ps": [2.0]}, "from 0"),
    ],
)
def test_refusals(sweep, arguments, words):
    with pytest.raises(ValueError, match=words):
        sweep(**arguments)
