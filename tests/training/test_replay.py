"""Replay: what a checkpoint knows is mixed into fine-tuning."""

from __future__ import annotations

from collections import Counter

import pytest

from commands import run
from helpers import picture
from wallaroo_hf import default_checkpoint
from wallaroo_hf.families.registry import load
from wallaroo_hf.training.data.mixing import Source, TaskMixture
from wallaroo_hf.training.replay import SCENES, mix_in, scene_sources, with_replay
from wallaroo_hf.training.run import RunOptions, fine_tuning, load_training_data
from wallaroo_hf.training.stages import STAGES

TASKS = ("understanding", "generation", "editing", "interleaved")


def _rows(count, task="generation"):
    return [{"name": f"own {task} {index}"} for index in range(count)]


def _shares(sources, ratio, length=4000):
    """Of sources in a mixture, by name."""
    mixture = TaskMixture(sources, ratio, length=length)
    counts = Counter(mixture.locate(position).source for position in range(length))
    return {name: count / length for name, count in counts.items()}


def test_the_share_is_kept_and_ones_own_ratio_too():
    own = {"generation": [Source(_rows(30), "a"), Source(_rows(10), "b")], "editing": [Source(_rows(9), "c")]}
    known = {"generation": [Source(_rows(100), "x")], "understanding": [Source(_rows(300), "y")]}
    sources, ratio = mix_in(own, {"generation": 2, "editing": 1}, known, 0.4)
    shares = _shares(sources, ratio)
    assert shares["x"] + shares["y"] == pytest.approx(0.4, abs=0.01)
    assert shares["y"] == pytest.approx(3 * shares["x"], rel=0.05)  # by their numbers
    assert shares["a"] + shares["b"] == pytest.approx(2 * shares["c"], rel=0.05)
    assert shares["a"] == pytest.approx(3 * shares["b"], rel=0.05)  # every row as often as the others


def test_rows_that_are_not_trained_stay_out():
    own = {"generation": [Source(_rows(4), "a")], "editing": [Source(_rows(4), "b")]}
    sources, _ = mix_in(own, {"generation": 1, "editing": 0}, {"generation": [Source(_rows(4), "x")]}, 0.5)
    assert [source.name for source in sources["generation"]] == ["a", "x"] and "editing" not in sources


@pytest.mark.parametrize("share", [0, 1, 1.5, float("nan")])
def test_shares_that_cannot_be(share):
    own = {"generation": [Source(_rows(4), "a")]}
    with pytest.raises(ValueError, match="above 0 and below 1"):
        mix_in(own, {"generation": 1}, own, share)


def test_streams_are_refused():
    own = {"generation": [Source(iter(_rows(4)), "a", 1.0)]}
    with pytest.raises(ValueError, match="beside streams"):
        mix_in(own, {"generation": 1}, {"generation": [Source(_rows(4), "x")]})


def test_the_scenes_of_what_the_checkpoint_does():
    abilities = load(default_checkpoint(), "cpu").abilities
    sources = scene_sources("built-in", abilities, TASKS, seed=1)
    assert list(sources) == ["generation", "editing", "understanding", "interleaved"]
    for task, found in sources.items():
        for source in found:
            row = source.rows[3]
            assert row["messages"][-1]["role"] == "assistant" and row.get("task", task) == task
    assert "editing" not in scene_sources("built-in", abilities, ("generation", "understanding"), seed=1)


def test_a_checkpoint_that_never_saw_them_needs_data(compact, tmp_path):
    options = RunOptions(str(compact.folder), tmp_path, replay=SCENES)
    with pytest.raises(ValueError, match="name data that keep what it knows: --replay DATA"):
        with_replay(options, STAGES["4"](), {"generation": [Source(_rows(4), "a")]})


@pytest.fixture
def folders(tmp_path):
    """Pictures of one's own, and some that are known."""
    for name in ("own", "known"):
        (tmp_path / name).mkdir()
        for index in range(3):
            picture(index, 32, 32).save(tmp_path / name / f"{index}.png")
            (tmp_path / name / f"{index}.txt").write_text(f"{name} {index}")
    return tmp_path


def test_data_of_ones_own_is_replayed(folders, compact):
    options = RunOptions(str(compact.folder), folders / "run", replay=str(folders / "known"), replay_share=0.25)
    sources, encoded = load_training_data(str(folders / "own"))
    chosen = fine_tuning(options.model, {"generation": 3}, lora=False)
    changed, mixed, _ = with_replay(options, chosen, sources, encoded)
    assert dict(changed.task_ratio) == {"generation": 1.0}
    assert [round(source.weight, 3) for source in mixed["generation"]] == [0.75, 0.25]
    same, untouched, _ = with_replay(RunOptions(options.model, options.output), chosen, sources, encoded)
    assert same is chosen and untouched == {"generation": list(sources["generation"])}


def _train(folders, *words, code=0):
    few = ("--steps", 2, "--set", "global_batch_size=2", "--device", "cpu")
    return run("train", "--data", folders / "own", "-o", folders / "run", *few, *words, code=code)


def test_the_command(folders, compact):
    """`--replay` alone is the scenes; with data it is these, which then belong to the run."""
    out = _train(folders, "--replay", "--dry-run")
    assert "generation 0.7, editing 0.15" in " ".join(out.split())
    _train(folders, "-m", compact.folder, "--replay", folders / "known", "--set", "buckets=[[32, 32]]")
    assert '"replay_share": 0.5' in (folders / "run" / "settings.json").read_text()
    words = _train(folders, "-m", compact.folder, "--dry-run", "--replay", code=1)
    assert "--replay DATA" in " ".join(words.split())
