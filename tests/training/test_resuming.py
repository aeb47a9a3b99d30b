"""What a run was begun with: kept in its folder, compared when it is resumed."""

import dataclasses
import json
from pathlib import Path

import pytest

from wallaroo_hf.training.previews import Preview
from wallaroo_hf.training.resuming import SETTINGS_FILE, check_settings, run_settings, write_settings
from wallaroo_hf.training.run import RunOptions
from wallaroo_hf.training.stages import stage

OLD_SETTINGS = Path(__file__).parent / "assets" / "old_settings.json"  # as written before `trains` were names
OPTIONS = RunOptions("someone/model", Path("run"))


@pytest.fixture
def begun(tmp_path):
    """A folder with the settings of a run of stage 2."""
    write_settings(tmp_path, run_settings(OPTIONS, stage("2"), "someone/data"))
    return tmp_path


def test_every_setting_counts_but_those_that_may_change(begun):
    more = {
        "output": begun / "moved",
        "batch_size": 4,
        "previews": (Preview("a dog"),),
        "save_steps": 7,
        "logging_steps": 3,
        "workers": 2,
        "device": "cpu",
        "lora_rank": 8,  # without LoRA
    }
    options = dataclasses.replace(OPTIONS, **more)
    check_settings(begun, run_settings(options, stage("2").override({"max_steps": 7}), "someone/data"))
    for changes, words in (
        ({"model": "another/model"}, "`model` 'someone/model', not 'another/model'"),
        ({"seed": 1}, "`seed` 0, not 1"),
        ({"quantize": True, "lora": True}, "`lora` False, not True, `quantize` False, not True"),
    ):
        with pytest.raises(ValueError, match=words):
            check_settings(begun, run_settings(dataclasses.replace(OPTIONS, **changes), stage("2"), "someone/data"))
    with pytest.raises(ValueError, match="`data` 'someone/data', not 'another/data'"):
        check_settings(begun, run_settings(OPTIONS, stage("2"), "another/data"))
    with pytest.raises(ValueError, match=r"begun with `stage` '2', not '3a', `learning_rate` 0\.0001, not 4e-05"):
        check_settings(begun, run_settings(OPTIONS, stage("3a"), "someone/data"))


def test_a_path_is_the_same_from_wherever_it_is_named(begun, monkeypatch):
    (begun / "data").mkdir()
    write_settings(begun, run_settings(OPTIONS, stage("2"), str(begun / "data")))
    monkeypatch.chdir(begun)
    check_settings(begun, run_settings(OPTIONS, stage("2"), "data"))


def test_runs_of_other_versions_go_on(begun):
    settings = run_settings(OPTIONS, stage("2"), "someone/data")
    check_settings(begun, settings | {"newer": 1})
    (begun / SETTINGS_FILE).unlink()
    check_settings(begun, settings | {"seed": 1})


@pytest.mark.parametrize(
    ("which", "settings"),
    [("fine_tuning", {}), ("stage_4_drawing_parts", {"trains": "generation_parts", "warmup_steps": 0})],
)
def test_a_run_of_old_code_goes_on(tmp_path, which, settings):
    """Its record says `trains` in one word, and knows no layout."""
    old = json.loads(OLD_SETTINGS.read_text(encoding="utf-8"))[which]
    assert isinstance(old["trains"], str) and "layout" not in old
    write_settings(tmp_path, old)
    chosen = stage(4).override({**settings, "global_batch_size": 6, "max_steps": 99})
    if which == "fine_tuning":
        layout = chosen.named_layout()
        sizes = {"buckets": layout.buckets, "indicator_sizes": layout.indicators, "pixel_limits": None}
        ratio = {"understanding": 2, "generation": 2, "editing": 2}
        chosen = dataclasses.replace(chosen, layout=None, follows=None, warmup_steps=10, task_ratio=ratio, **sizes)
    check_settings(tmp_path, run_settings(OPTIONS, chosen, "someone/data"))
    for other in (("edit_head.",), "understanding_parts"):
        with pytest.raises(ValueError, match=f"begun with `trains` '{old['trains']}', not "):
            check_settings(tmp_path, run_settings(OPTIONS, dataclasses.replace(chosen, trains=other), "someone/data"))


def test_a_run_of_an_own_stage_goes_on(tmp_path):
    chosen = dataclasses.replace(stage("4"), name="5", trains=("edit_head.",), layout=None)
    write_settings(tmp_path, run_settings(OPTIONS, chosen, "someone/data"))
    check_settings(tmp_path, run_settings(OPTIONS, dataclasses.replace(chosen), "someone/data"))
    with pytest.raises(ValueError, match=r"begun with `trains` \['edit_head.'\], not 'all'"):
        check_settings(tmp_path, run_settings(OPTIONS, dataclasses.replace(chosen, trains="all"), "someone/data"))


def test_the_record_is_whole_or_not_there(begun, monkeypatch):
    monkeypatch.setattr(json, "dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_settings(begun, {"seed": 1})
    monkeypatch.undo()
    assert json.loads((begun / SETTINGS_FILE).read_text(encoding="utf-8"))["seed"] == 0
    assert [path.name for path in begun.iterdir()] == [SETTINGS_FILE]
