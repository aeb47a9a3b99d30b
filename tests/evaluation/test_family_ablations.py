"""`wallaroo evaluate ablation FAMILY`: variants that a family brings, trained, resumed, judged and compared."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from toy_ablation import ABLATION
from toy_family import FAMILY, save_toy
from wallaroo_hf.cli import app
from wallaroo_hf.evaluation.family_ablations import FamilyComparison, FamilySettings, family_runs, run_family_ablation
from wallaroo_hf.evaluation.family_ablations.family_scoring import Drawn, agreement, judge_drawn
from wallaroo_hf.evaluation.family_ablations.few_rows import FewRows, few_items
from wallaroo_hf.families.ablation_contract import Claim
from wallaroo_hf.families.registry import FAMILIES
from wallaroo_hf.scenes import Scene, render
from wallaroo_hf.scenes.captions import CAPTION_CATEGORIES

TINY = FamilySettings(seeds=2, judged=6)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return save_toy(tmp_path_factory.mktemp("toy"))


def _read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_variant_and_seed_is_trained_and_scored_once(toy, tmp_path, monkeypatch):
    found = run_family_ablation(FAMILY, tmp_path, toy, TINY, "cpu")
    assert list(found.runs) == ["plain", "half", "coarse"] and found.num_seeds == 2
    assert [run["steps"] for run in found.runs["half"]] == [3, 3], "half as many again"
    run = _read(tmp_path / "runs" / "coarse-seed-1.json")
    assert set(run["values"]) == {
        *("right", "background", "count", "shape", "colour", "agreement 0.5", "difference 0.5"),
    }
    assert all(len(values) == 6 for values in run["values"].values()) and math.isfinite(run["losses"]["loss"])
    widths = [Image.open(tmp_path / "runs" / f"{name}-seed-1.png").width for name in ("half", "coarse")]
    assert widths[0] < widths[1], "a sheet shows coarser pictures too"
    manifest = _read(tmp_path / "manifest.json")
    assert manifest["variants"]["half"]["settings"] == {"strength": 0.5}
    assert manifest["variants"]["half"]["stage"]["max_steps"] == 3 and "torch" in manifest["versions"]
    results = _read(tmp_path / "results.json")
    assert results == json.loads(json.dumps(found.to_dict())) and results["settings"]["steps"] == 2
    assert set(results["variants"]["half"]["differences"]) == {"plain"}
    table = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert "| half | 3 |" in table and "strength helps | plain > half" in table and "agreement 0.5" in table
    assert (tmp_path / "comparison.png").stat().st_size > 1000
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".training-")]

    monkeypatch.setattr(family_runs, "train_variant", None)  # nothing is trained again
    assert run_family_ablation(FAMILY, tmp_path, toy, TINY, "cpu").to_dict() == found.to_dict()


def test_an_interrupted_one_goes_on_to_the_same_results(toy, tmp_path, monkeypatch):
    whole = run_family_ablation(FAMILY, tmp_path / "whole", toy, TINY, "cpu")
    train, trained = family_runs.train_variant, []

    def stop_once(ablation, parts, plan, seed, *more):
        if (plan.variant, seed) == ("half", 1) and "stopped" not in trained:
            trained.append("stopped")
            raise KeyboardInterrupt
        trained.append((plan.variant, seed))
        return train(ablation, parts, plan, seed, *more)

    monkeypatch.setattr(family_runs, "train_variant", stop_once)
    folder = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        run_family_ablation(FAMILY, folder, toy, TINY, "cpu")
    assert not (folder / "results.json").exists(), "nothing is compared before all is there"
    torch.manual_seed(99)  # nothing depends on what was computed before
    found = run_family_ablation(FAMILY, folder, toy, TINY, "cpu")
    assert trained == [
        *(("plain", 0), ("half", 0), ("coarse", 0), ("plain", 1), "stopped", ("half", 1), ("coarse", 1)),
    ]
    assert {name: [run["values"] for run in runs] for name, runs in found.runs.items()} == {
        name: [run["values"] for run in runs] for name, runs in whole.runs.items()
    }


def test_variants_and_seeds_are_added(toy, tmp_path, monkeypatch):
    run_family_ablation(FAMILY, tmp_path, toy, FamilySettings(("half",), seeds=1, judged=6), "cpu")
    train, trained = family_runs.train_variant, []

    def noted(ablation, parts, plan, seed, *more):
        trained.append((plan.variant, seed))
        return train(ablation, parts, plan, seed, *more)

    monkeypatch.setattr(family_runs, "train_variant", noted)
    found = run_family_ablation(FAMILY, tmp_path, toy, FamilySettings(("half", "plain"), seeds=2, judged=6), "cpu")
    assert trained == [("plain", 0), ("plain", 1), ("half", 1)] and list(found.runs) == ["plain", "half"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": 3}, r"other settings \(steps 2, now 3\)"),
        ({"judged": 7}, r"other settings \(judged 6, now 7"),
        ({"split": "train"}, r'other settings \(split "test", now "train"'),
    ],
)
def test_runs_of_other_settings_are_refused(toy, tmp_path, monkeypatch, changed, message):
    run_family_ablation(FAMILY, tmp_path, toy, FamilySettings(("plain",), seeds=1, judged=6), "cpu")
    monkeypatch.setattr(family_runs, "train_variant", None)  # before anything is trained
    with pytest.raises(ValueError, match=message):
        run_family_ablation(FAMILY, tmp_path, toy, FamilySettings(**{"seeds": 1, "judged": 6, **changed}), "cpu")


def test_a_variant_that_became_another_is_refused(toy, tmp_path, monkeypatch):
    settings = FamilySettings(("half",), seeds=1, judged=6)
    run_family_ablation(FAMILY, tmp_path, toy, settings, "cpu")
    monkeypatch.setattr(type(ABLATION), "describe", lambda self, variant: {"strength": 0.25})
    with pytest.raises(ValueError, match=r"half-seed-0.json was made with other settings \(.*0.25"):
        run_family_ablation(FAMILY, tmp_path, toy, settings, "cpu")


def test_steps_that_fit_are_measured_once_for_all_seeds(toy, tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr(family_runs, "measure_step", lambda *arguments: measured.append(arguments[2].variant) or 0.5)
    settings = FamilySettings(("plain", "half"), cpu_seconds=1.6, seeds=2, judged=6)
    found = run_family_ablation(FAMILY, tmp_path, toy, settings, "cpu")
    assert measured == ["plain", "half"]
    assert {name: [run["steps"] for run in runs] for name, runs in found.runs.items()} == {
        "plain": [3, 3],
        "half": [3, 3],
    }
    more = FamilySettings(("plain",), cpu_seconds=1.6, seeds=3, judged=6)
    assert len(run_family_ablation(FAMILY, tmp_path, toy, more, "cpu").runs["plain"]) == 3 and len(measured) == 2
    assert _read(tmp_path / "runs" / "plain-steps.json") == {"cpu_seconds": 1.6, "seconds_per_step": 0.5, "steps": 3}


def test_a_step_is_measured_for_real(toy, tmp_path):
    found = run_family_ablation(
        FAMILY, tmp_path, toy, FamilySettings(("plain",), cpu_seconds=1, seeds=1, judged=6), "cpu"
    )
    assert found.runs["plain"][0]["steps"] >= 1
    assert _read(tmp_path / "runs" / "plain-steps.json")["seconds_per_step"] > 0


def test_what_cannot_be_is_one_sentence(toy, tmp_path):
    with pytest.raises(ValueError, match="no variant 'whole'; there are plain, half, coarse"):
        run_family_ablation(FAMILY, tmp_path, toy, FamilySettings(("whole",)), "cpu")
    with pytest.raises(ValueError, match="Wallaroo has no ablation"):
        run_family_ablation(FAMILIES["wallaroo"], tmp_path, toy, TINY, "cpu")
    for settings, message in (
        ({"steps": 1, "cpu_seconds": 1}, "give one of them"),
        ({"seeds": 0}, "`seeds` is 0"),
        ({"judged": 1}, "at least 2"),
        ({"split": "all"}, "`split` is 'all'"),
        ({"cpu_seconds": math.nan}, "`cpu_seconds` is nan"),
    ):
        with pytest.raises(ValueError, match=message):
            FamilySettings(**settings)


def test_the_command(toy, tmp_path):
    def invoke(*arguments, code=0):
        result = CliRunner().invoke(
            app, ["evaluate", "ablation", *map(str, arguments), "--device", "cpu"], env={"COLUMNS": "200"}
        )
        assert result.exit_code == code, result.output
        return result.output

    given = ("toy", "-o", tmp_path / "out", "--base", toy, "--seeds", 1, "--judged", 6, "--steps", 1)
    said = invoke(*given, "--variants", "half, plain")
    assert "half" in said and "coarse" not in said.replace("coarse pictures help", "").replace("coarse > plain", "")
    assert "strength helps" in said and "not run" in said
    assert json.loads(invoke(*given, "--variants", "plain", "--json"))["variants"]["plain"]["steps"] == 1
    assert "no variant 'full'" in invoke(*given, "--variants", "full", code=1)
    refused = invoke("edit_head", "-o", tmp_path / "other", "--variants", "shared", code=1)
    assert "--variants is for the variants of a family (" in refused and not (tmp_path / "other").exists()
    assert "no ablation 'heads'; there are mask_ratio" in invoke("heads", "-o", tmp_path / "other", code=1)


# ------------------------------------------------------------------------------------------------------- what is drawn


def test_rows_and_items_are_small_scenes_of_few_objects():
    rows, items = FewRows(40, 0), few_items(12, "test")
    assert [item.category for item in items] == [*CAPTION_CATEGORIES] * 2
    for item in items:
        assert (item.height, item.width, item.language) == (64, 64, "en")
        assert sum(one.count for one in item.prompt.spec.objects) <= 2
    for row in (rows[0], rows[39]):
        assert (row["height"], row["width"]) == row["images"][0].size == (64, 64)
    assert len({rows[index]["messages"][0]["content"][0]["text"] for index in range(40)}) > 30
    assert rows[3]["messages"] == FewRows(9, 0)[3]["messages"] != FewRows(9, 1)[3]["messages"]
    assert [item.seed for item in few_items(6, "test")] == [item.seed for item in items[:6]], "the same noise"
    learned = {row["messages"][0]["content"][0]["text"] for row in map(FewRows(400, 0).__getitem__, range(400))}
    assert not learned & {item.prompt.prompt for item in items}, "test combines what training never does"


def _true_scene(spec):
    """A picture of what a caption of one object says."""
    (thing,) = spec.objects
    objects = [{"shape": thing.shape, "colour": thing.colour or "red", "row": 0, "col": 0}]
    return {"height": 64, "width": 64, "background": spec.background or "white", "objects": objects}


def test_what_is_drawn_is_judged_part_by_part():
    items = [item for item in few_items(12, "test") if item.category in ("single_object", "colours")]
    pictures = [render(Scene.from_dict(_true_scene(item.prompt.spec))) for item in items]
    pictures[0] = Image.new("RGB", (64, 64), "white")
    pixels = [torch.from_numpy(np.array(one)).permute(2, 0, 1) / 127.5 - 1 for one in pictures]
    halves = [torch.nn.functional.avg_pool2d(one, 2) for one in pixels]
    values = judge_drawn(items, Drawn(pictures, [[half, one] for half, one in zip(halves, pixels)]))
    assert values["right"] == [0.0, 1.0, 1.0, 1.0] and values["count"] == [0.0, 1.0, 1.0, 1.0]
    assert values["shape"][1:] == [1.0] * 3 and values["colour"][0] is None and values["colour"][1] == 1.0
    assert min(values["agreement 0.5"]) > 0.8, "two pictures are one, of which one counts half"
    assert max(values["difference 0.5"]) == pytest.approx(0, abs=1e-4)


def test_agreement_is_chance_for_strangers():
    torch.manual_seed(0)
    fine = torch.randn(200, 3, 8, 8)
    own = torch.nn.functional.avg_pool2d(fine, 2)
    assert agreement(own, fine)[0].tolist() == [1.0] * 200
    agrees, differs = agreement(torch.randn(200, 3, 4, 4), fine)
    assert 0.4 < agrees.mean() < 0.6 and differs.min() > 0
    flat = torch.zeros(4, 3, 8, 8)
    assert agreement(flat[..., :4, :4], flat)[0].tolist() == [0.5] * 4, "equal ones count half"
    one, far = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 8, 8), 0.5)
    assert agreement(one, far)[1].tolist() == pytest.approx([0.5 * 127.5] * 2)


# ----------------------------------------------------------------------------------------------------------- statistics


def _comparison(values, categories=None):
    """Of variants' `right`, `(seeds, items)` each."""
    rest = {"steps": 1, "process_seconds": {"training": 1.0}, "losses": {}}
    runs = {name: [{"values": {"right": list(seed)}, **rest} for seed in seeds] for name, seeds in values.items()}
    count = len(next(iter(values.values()))[0])
    return FamilyComparison(ABLATION, "Toy", {"judged": count, "split": "test"}, categories or ["a"] * count, runs)


def test_a_mean_is_over_categories_and_leaves_out_what_has_none():
    found = _comparison({"plain": [[1.0, 0.0, None, 1.0]]}, ["a", "a", "a", "b"]).mean("plain", "right")
    assert (
        found.value == pytest.approx((0.5 + 1.0) / 2) and found.by_seed == (0.75,) and found.seeds_half_width is None
    )
    assert found.low <= 0.5 < 1.0 <= found.high
    assert _comparison({"plain": [[None, None]]}).mean("plain", "right") is None


def test_a_mean_of_many_items_has_the_interval_of_a_share():
    rng = np.random.default_rng(0)
    values = (rng.random((1, 2000)) < 0.3).astype(float)
    found = _comparison({"plain": values}).mean("plain", "right")
    share = values.mean()
    half = 1.96 * math.sqrt(share * (1 - share) / 2000)
    assert found.low == pytest.approx(share - half, abs=0.003) and found.high == pytest.approx(share + half, abs=0.003)


def test_differences_are_paired_by_item():
    """Items that both get right or wrong tell nothing: the interval is that of those that change."""
    rng = np.random.default_rng(1)
    hard = rng.random(400) < 0.5
    plain = np.stack([hard, hard]).astype(float)
    better = plain.copy()
    better[:, np.flatnonzero(~hard)[:20]] = 1.0
    found = _comparison({"plain": plain, "coarse": better}).difference("coarse", "plain", "right")
    assert found.value == pytest.approx(0.05) and found.by_seed == (0.05, 0.05)
    assert found.low == pytest.approx(0.05 - 0.022, abs=0.006), "unpaired it would be -0.02"
    assert found.high == pytest.approx(0.05 + 0.022, abs=0.006)


def test_differences_are_paired_by_seed():
    """Seeds that are far apart do not hide a difference that each of them shows, and seeds that disagree are seen."""
    rng = np.random.default_rng(2)
    plain = np.stack([rng.random(300) < share for share in (0.2, 0.5, 0.8)]).astype(float)
    shift = np.where(rng.random((3, 300)) < 0.1, 1.0, 0.0)
    found = _comparison({"plain": plain, "half": np.maximum(plain - shift, 0)})
    difference = found.difference("half", "plain", "right")
    assert difference.high < 0 and max(difference.by_seed) < 0
    assert found.verdict(Claim("strength helps", "plain", "half")) == "appears"
    assert found.verdict(Claim("strength harms", "half", "plain")) == "the opposite appears"
    assert found.verdict(Claim("coarse pictures help", "coarse", "plain")) == "not run"
    other = plain.copy()
    other[0], other[2] = 1.0, 0.0  # one seed far up, one far down
    assert _comparison({"plain": plain, "half": other}).verdict(Claim("", "half", "plain")) == "not told apart"
    wide = _comparison({"plain": plain, "half": other}).difference("half", "plain", "right")
    assert wide.low < -0.4 and wide.high > 0.4, "seeds are drawn anew as well"


def test_of_one_seed_nothing_is_claimed():
    values = {"plain": [[1.0] * 60], "half": [[0.0] * 60]}
    assert _comparison(values).verdict(Claim("", "plain", "half")) == "not told apart"
