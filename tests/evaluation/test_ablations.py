"""`wallaroo evaluate ablation`: a step of every variant, resuming, what is compared, and what is refused."""

import json
import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from filelock import Timeout
from huggingface_hub.utils import WeakFileLock
from typer.testing import CliRunner

import wallaroo_hf
from wallaroo_hf.cli import app
from wallaroo_hf.evaluation.ablations import ABLATIONS, AblationSettings, Comparison, find_ablation, run_ablation, runs
from wallaroo_hf.evaluation.ablations.comparison import t_interval
from wallaroo_hf.evaluation.ablations.data import SIZES, TRAIN_SEED, VALIDATION_SEED, Lessons
from wallaroo_hf.evaluation.ablations.tokenizers import tokenizer_config
from wallaroo_hf.evaluation.ablations.training import TrainingPlan
from wallaroo_hf.training.stages import STAGES, check_order

TINY = AblationSettings(steps=1, seeds=1, batch_size=4, rows=8, validation_rows=6, judged=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One for all ablations, which share rows and the released runs."""
    return tmp_path_factory.mktemp("ablations")


@pytest.mark.parametrize("name", ABLATIONS)
def test_one_step_of_every_variant(folder, name):
    comparison = run_ablation(name, folder, settings=TINY, device="cpu")
    assert list(comparison.scores) == [variant.name for variant in ABLATIONS[name].variants]
    for scores in comparison.scores.values():
        assert set(scores) == {metric.name for metric in ABLATIONS[name].metrics}
        assert all(len(values) == 1 and math.isfinite(values[0]) for values in scores.values())
    if name != "tokenizer":  # every variant computes something else
        losses = [scores["drawing_codes"][0] for scores in comparison.scores.values()]
        assert len(set(losses)) == len(losses)
    else:
        assert [scores["codes_per_picture"] for scores in comparison.scores.values()] == [[16.0], [64.0]]
    saved = json.loads((folder / name / "results.json").read_text(encoding="utf-8"))
    assert saved == json.loads(json.dumps(comparison.to_dict())) and saved["settings"]["steps"] == 1
    assert comparison.plot(folder / name / "comparison.png").stat().st_size > 1000


def test_an_interrupted_run_goes_on_to_the_same_results(folder, tmp_path, monkeypatch):
    whole = run_ablation("edit_head", folder, settings=TINY, device="cpu")
    train, trained = runs.train_variant, []

    def stop_at_shared(variant, *arguments):
        if variant.name == "shared" and not trained.count("stopped"):
            trained.append("stopped")
            raise KeyboardInterrupt
        trained.append(variant.name)
        return train(variant, *arguments)

    monkeypatch.setattr(runs, "train_variant", stop_at_shared)
    with pytest.raises(KeyboardInterrupt):
        run_ablation("edit_head", tmp_path, settings=TINY, device="cpu")
    assert not (tmp_path / "edit_head").exists(), "nothing is compared before all is there"
    parts = run_ablation("edit_head", tmp_path, settings=TINY, device="cpu")
    assert trained == ["separate", "stopped", "shared"]
    assert parts.scores == whole.scores
    torch.manual_seed(99)  # nothing depends on what was computed before
    run_ablation("mask_ratio", tmp_path, settings=TINY, device="cpu")
    assert trained[3:] == ["0", "0.3", "0.9"], "the released arrangement was trained already"
    assert not list(tmp_path.glob(".training-*"))


def test_what_another_ablation_finished_in_the_meantime_is_taken(folder, tmp_path, monkeypatch):
    whole = run_ablation("edit_head", folder, settings=TINY, device="cpu")
    train, trained = runs.train_variant, []

    def train_while_another_finishes(variant, *arguments):
        trained.append(variant.name)
        if variant.name == "0":
            run_ablation("edit_head", tmp_path, settings=TINY, device="cpu")  # trains the released arrangement too
        return train(variant, *arguments)

    monkeypatch.setattr(runs, "train_variant", train_while_another_finishes)
    masks = run_ablation("mask_ratio", tmp_path, settings=TINY, device="cpu")
    assert trained == ["0", "separate", "shared", "0.3", "0.9"]
    assert masks.scores["0.6"] == whole.scores["separate"]


def test_rows_are_encoded_by_one_ablation_at_a_time(tmp_path, monkeypatch):
    encode, tried = runs.encoded_lessons, []

    def encode_while_another_tries(*arguments):
        with pytest.raises(Timeout), WeakFileLock(tmp_path / "rows" / ".lock", timeout=0.01):
            pass
        tried.append(arguments[0])
        return encode(*arguments)

    monkeypatch.setattr(runs, "encoded_lessons", encode_while_another_tries)
    run_ablation("edit_head", tmp_path, settings=TINY, device="cpu")
    assert tried == ["editing", "editing", "generation", "generation"]
    with WeakFileLock(tmp_path / "rows" / ".lock", timeout=1):
        pass  # free again


def test_runs_of_other_settings_are_refused(folder):
    run_ablation("edit_head", folder, settings=TINY, device="cpu")
    other = AblationSettings(steps=2, seeds=1, batch_size=4, rows=8, validation_rows=6, judged=2)
    with pytest.raises(ValueError, match="other settings \\(steps 1, now 2\\)"):
        run_ablation("edit_head", folder, settings=other, device="cpu")


def test_the_console_script_loads_its_base(folder):
    """It registers the Auto classes late: without them no processor is found."""
    run_ablation("edit_head", folder, settings=TINY, device="cpu")

    def run(*arguments):
        starts = "import wallaroo_hf_launcher; wallaroo_hf_launcher.main()"
        command = [sys.executable, "-c", starts, "evaluate", "ablation", "edit_head", "--seeds", "1", *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 1 and "Traceback" not in result.stderr
        return result.stderr.strip().splitlines()[-1]

    assert "was made with other settings" in run("-o", str(folder), "--steps", "2", "--device", "cpu")
    assert "The device 'gpu' cannot be used" in run("-o", str(folder), "--device", "gpu")
    assert "No checkpoint could be loaded from '/nowhere'" in run("-o", str(folder), "--base", "/nowhere")


def test_unknown_names_and_numbers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no ablation 'heads'; there are mask_ratio, edit_head"):
        run_ablation("heads", tmp_path)
    with pytest.raises(ValueError, match="`seeds` is 0"):
        AblationSettings(seeds=0)
    with pytest.raises(ValueError, match="judge fewer"):
        AblationSettings(judged=3, validation_rows=2)
    result = CliRunner().invoke(app, ["evaluate", "ablation", "heads", "-o", str(tmp_path / "out")])
    assert result.exit_code == 1 and "no ablation 'heads'" in result.stderr and not (tmp_path / "out").exists()


def test_the_command_shows_a_table_and_goes_on_with_what_is_there(tmp_path, monkeypatch):
    def invoke(*more):
        arguments = ["evaluate", "ablation", "tokenizer", "-o", str(tmp_path), "--steps", "1", "--judged", "2"]
        result = CliRunner().invoke(app, [*arguments, "--device", "cpu", *more], env={"COLUMNS": "160"})
        assert result.exit_code == 0, result.output + repr(result.exception)
        return result.stdout

    def trained_already(*arguments):
        return SimpleNamespace()

    scores = {"psnr": 20.0, "rebuilt_right": 0.5, "codes_per_picture": 16.0, "bits_per_picture": 80.0}
    monkeypatch.setattr(runs, "train_tokenizer_variant", trained_already)
    monkeypatch.setattr(runs, "score_tokenizer", lambda *arguments: dict(scores))
    assert "one seed" in invoke("--seeds", "1")
    monkeypatch.setattr(runs, "score_tokenizer", lambda *arguments: scores | {"psnr": 21.0})
    out = invoke("--seeds", "2")
    assert "f16*" in out and "20.5" in out and "50.0 %" in out and "within noise" in out
    assert json.loads(invoke("--seeds", "2", "--json"))["variants"]["f8"]["metrics"]["psnr"]["by_seed"] == [20.0, 21.0]


def test_differences_are_paired_by_seed():
    """Seeds that are far apart do not hide a difference that each of them shows."""
    ablation = find_ablation("edit_head")
    scores = {
        "separate": {metric.name: [1.0, 2.0, 3.0] for metric in ablation.metrics},
        "shared": {metric.name: [1.5, 2.4, 3.6] for metric in ablation.metrics},
    }
    scores["separate"]["edits_right"] = [0.0, 0.0, 0.0]
    scores["shared"]["edits_right"] = [0.01, 0.01, 0.01]  # one picture more, by chance in each
    scores["separate"]["drawings_right"] = [0.1, 0.2, 0.3]
    scores["shared"]["drawings_right"] = [0.6, 0.69, 0.81]
    comparison = Comparison(ablation, {"judged": 100}, scores, {"separate": [1.0] * 3, "shared": [1.0] * 3})
    verdicts = {metric.name: comparison.verdict("shared", metric) for metric in ablation.metrics}
    assert verdicts["edit_codes"] == "worse" and verdicts["drawings_right"] == "better"
    assert verdicts["edits_right"] == "within noise"
    found = comparison.difference("shared", "edit_codes")
    assert found.mean == pytest.approx(0.5) and found.half_width == pytest.approx(4.303 * 0.1 / math.sqrt(3), abs=1e-9)


def test_interval():
    assert t_interval([2.0]) == (2.0, None)
    mean, half_width = t_interval([1.0, 3.0])
    assert mean == 2.0 and half_width == pytest.approx(12.706)


def test_what_is_scored_is_not_what_was_learned():
    def texts(kind, seed):
        return {
            (row["prompt"], str(row["scene"]), str(row["target_scene"]))
            for row in map(Lessons(kind, 40, seed).scene_row, range(40))
        }

    for kind in ("editing", "generation", "sizes"):
        assert not texts(kind, TRAIN_SEED) & texts(kind, VALIDATION_SEED)
    sizes = [(row["height"], row["width"]) for row in Lessons("sizes", 12, 0)]
    assert sizes == [*SIZES, *SIZES], "all alike, so that none can be guessed"
    by_width = {width: {height for height, other in SIZES if other == width} for _, width in SIZES}
    assert len(by_width[64]) == 3 and len(by_width[96]) == 2, "a width leaves the height open"


def test_the_base_may_be_of_any_stage():
    variant = find_ablation("mask_ratio").variants[0]
    assert [check_order(name, TrainingPlan(1).stage("edits", variant)) for name in STAGES] == [None] * len(STAGES)
    assert check_order("my-stage", TrainingPlan(1).stage("edits", variant)) is None


def test_each_variant_changes_one_thing():
    plan = TrainingPlan(10)
    for ablation in ABLATIONS.values():
        if ablation.kind == "tokenizer":
            continue
        released = plan.stage(ablation.kind, ablation.baseline)
        for variant in ablation.variants:
            changed = plan.stage(ablation.kind, variant) != released
            subclass = variant.model_class is not wallaroo_hf.WallarooForConditionalGeneration
            subclass |= variant.processor_class is not wallaroo_hf.WallarooProcessor
            arranged = variant.arrange is not ablation.baseline.arrange
            assert changed + subclass + arranged == (variant is not ablation.baseline), (ablation.name, variant.name)
    assert plan.stage("edits", find_ablation("mask_ratio").baseline).source_mask_rate == 0.6


def test_tokenizers_differ_in_their_factor_only():
    small, fine = tokenizer_config(16), tokenizer_config(8)
    assert (small.image_token_size, fine.image_token_size) == (16, 8)
    assert small.codebook_size == fine.codebook_size and small.embed_dim == fine.embed_dim
    from wallaroo_hf.training.vq.vq_recipe import small_tokenizer_config

    assert list(small.channel_multiplier) == list(small_tokenizer_config().channel_multiplier)
