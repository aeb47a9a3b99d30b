"""Checkpoints: whole or not there, found when whole, and a killed run goes on as if nothing had happened."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

import training_runs
from training_runs import build_trainer, curve
from wallaroo_hf.training.checkpoints import (
    AtomicCheckpointMixin,
    _flush,
    find_last_complete_checkpoint,
    set_checkpoints_aside,
    why_incomplete,
)

STEPS = 7  # of 2 rows; 8 rows are an epoch of 4 steps


@pytest.fixture(scope="module")
def checkpoint(compact, tmp_path_factory, rows_of_module) -> Path:
    """A checkpoint that nobody changes."""
    folder = tmp_path_factory.mktemp("checkpoint")
    build_trainer(compact.folder, rows_of_module, folder, max_steps=1, save_steps=1).train()
    return folder / "checkpoint-1"


@pytest.fixture
def damaged(checkpoint, tmp_path) -> Path:
    """A copy to be damaged."""
    return shutil.copytree(checkpoint, tmp_path / "checkpoint-2")


# ------------------------------------------------------------------------------------------------------------- complete


def test_a_whole_checkpoint_is_complete(checkpoint):
    assert why_incomplete(checkpoint) is None
    assert find_last_complete_checkpoint(checkpoint.parent) == checkpoint


@pytest.mark.parametrize(
    "name",
    ["trainer_state.json", "model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"],
)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
def test_a_file_that_is_not_whole_is_found(damaged, name, damage):
    path = damaged / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(b"" if damage == "empty" else content[: len(content) * 9 // 10])
    reason = why_incomplete(damaged)
    assert reason is not None
    assert name in reason or reason == "it has no weights"


@pytest.mark.parametrize("state", ["[]", "{}", '{"global_step": null}'])
def test_a_state_that_says_nothing_is_found(damaged, state):
    (damaged / "trainer_state.json").write_text(state, encoding="utf-8")
    assert "trainer_state.json" in why_incomplete(damaged)


def test_every_shard_of_an_index_is_looked_at(damaged, model):
    (damaged / "model.safetensors").unlink()
    model.save_pretrained(damaged, max_shard_size="500KB")
    shards = sorted(damaged.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert why_incomplete(damaged) is None
    content = shards[1].read_bytes()
    shards[1].write_bytes(content[:-1])
    assert shards[1].name in why_incomplete(damaged)
    shards[1].unlink()
    assert shards[1].name in why_incomplete(damaged)
    (damaged / "model.safetensors.index.json").write_text('{"weight_map":', encoding="utf-8")
    assert "index.json is damaged" in why_incomplete(damaged)


def test_adapters_alone_are_weights(damaged, model):
    (damaged / "model.safetensors").unlink()
    get_peft_model(model, LoraConfig(target_modules=["q_proj"])).save_pretrained(damaged)
    assert why_incomplete(damaged) is None
    (damaged / "adapter_model.safetensors").write_bytes(b"{}")
    assert "adapter_model.safetensors" in why_incomplete(damaged)


def test_sharded_checkpoints_are_whole_when_their_last_file_is_there(damaged):
    """FSDP's and DeepSpeed's formats; tests/training/test_distributed.py writes real ones."""
    optimizer = (damaged / "optimizer.pt").read_bytes()
    for name in ("optimizer.pt", "model.safetensors"):
        (damaged / name).unlink()
    fsdp = shutil.copytree(damaged, damaged.with_name("fsdp"))
    for name in ("pytorch_model_fsdp_0", "optimizer_0"):
        (fsdp / name).mkdir()
    assert why_incomplete(fsdp) == "pytorch_model_fsdp_0 has no .metadata"
    (fsdp / "pytorch_model_fsdp_0" / ".metadata").touch()
    assert why_incomplete(fsdp) == "optimizer_0 has no .metadata"
    (fsdp / "optimizer_0" / ".metadata").touch()
    assert why_incomplete(fsdp) is None
    (fsdp / "scheduler.pt").unlink()
    assert why_incomplete(fsdp) == "scheduler.pt is missing"

    (damaged / "global_step2").mkdir()
    assert why_incomplete(damaged) == "latest is missing or damaged"
    (damaged / "latest").write_text("global_step2", encoding="utf-8")
    assert why_incomplete(damaged) == "global_step2 is missing or empty"
    (damaged / "global_step2" / "mp_rank_00_model_states.pt").write_bytes(optimizer)
    assert why_incomplete(damaged) is None
    (damaged / "global_step2" / "mp_rank_00_model_states.pt").write_bytes(optimizer[:-10])
    assert "mp_rank_00_model_states.pt is damaged" in why_incomplete(damaged)


def test_checkpoints_are_set_aside(tmp_path):
    """Whole or not; other files stay, and what was set aside before too."""
    assert set_checkpoints_aside(tmp_path / "no run") is None
    for run in (1, 2):
        for name in ("checkpoint-3", "checkpoint-20", "previews"):
            (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / "checkpoint-3" / "run").write_text(str(run), encoding="utf-8")
        assert set_checkpoints_aside(tmp_path) == tmp_path / f"set-aside-{run}"
    assert set_checkpoints_aside(tmp_path) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["previews", "set-aside-1", "set-aside-2"]
    for run in (1, 2):
        folder = tmp_path / f"set-aside-{run}"
        assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-20", "checkpoint-3"]
        assert (folder / "checkpoint-3" / "run").read_text(encoding="utf-8") == str(run)


def test_the_newest_complete_checkpoint_is_found(checkpoint, tmp_path):
    assert find_last_complete_checkpoint(tmp_path / "no run") is None
    assert find_last_complete_checkpoint(tmp_path) is None
    for number in (2, 9, 10, 11):
        shutil.copytree(checkpoint, tmp_path / f"checkpoint-{number}")
    shutil.copytree(checkpoint, tmp_path / "checkpoint-12.bak")
    shutil.copytree(checkpoint, tmp_path / "unfinished" / "checkpoint-13")
    (tmp_path / "checkpoint-14").touch()
    assert find_last_complete_checkpoint(tmp_path).name == "checkpoint-11"
    (tmp_path / "checkpoint-11" / "optimizer.pt").unlink()
    assert find_last_complete_checkpoint(tmp_path).name == "checkpoint-10"


# -------------------------------------------------------------------------------------------------------------- writing


def test_a_checkpoint_appears_when_it_is_whole(compact, rows, tmp_path, monkeypatch):
    seen = []
    save = AtomicCheckpointMixin._save_checkpoint

    def check(self, *args):
        for part in ("_save", "_save_optimizer_and_scheduler", "_save_rng_state"):
            original = getattr(self, part)

            def watched(*args, original=original, **kwargs):
                original(*args, **kwargs)
                seen.append((tmp_path / f"checkpoint-{self.state.global_step}").exists())

            monkeypatch.setattr(self, part, watched)
        save(self, *args)

    monkeypatch.setattr(AtomicCheckpointMixin, "_save_checkpoint", check)
    build_trainer(compact.folder, rows, tmp_path, max_steps=1, save_steps=1).train()
    assert seen == [False] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1"]


def test_files_are_flushed_as_windows_wants_it(tmp_path, monkeypatch):
    """Its fsync takes no file that is open for reading only."""
    flushed = []

    def fsync(descriptor):
        information = os.fstat(descriptor)
        if stat.S_ISREG(information.st_mode):
            os.write(descriptor, b"")  # OSError if it cannot
            flushed.append(information.st_ino)

    (tmp_path / "part").mkdir()
    files = [tmp_path / "weights", tmp_path / "part" / "state"]
    for file in files:
        file.write_bytes(b"content")
    monkeypatch.setattr(os, "fsync", fsync)
    _flush(tmp_path)
    assert sorted(flushed) == sorted(file.stat().st_ino for file in files)
    assert [file.read_bytes() for file in files] == [b"content"] * 2


def test_a_file_that_may_only_be_read_is_flushed_too(tmp_path, monkeypatch):
    (tmp_path / "copied").write_bytes(b"content")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # for root, who may write all, as well
    _flush(tmp_path)


def test_a_save_that_fails_leaves_no_checkpoint(compact, rows, tmp_path, monkeypatch):
    trainer = build_trainer(compact.folder, rows, tmp_path, max_steps=4, save_steps=2)

    def fail(folder):
        if trainer.state.global_step == 4:
            raise OSError("No space left on device")

    monkeypatch.setattr(trainer, "_save_rng_state", fail)
    monkeypatch.setattr(training_runs, "WallarooTrainer", type(trainer))
    with pytest.raises(OSError, match="No space"):
        trainer.train()
    assert not (tmp_path / "checkpoint-4").exists()
    assert not trainer._writing_checkpoint
    shutil.rmtree(tmp_path / "checkpoint-2")
    again = build_trainer(compact.folder, rows, tmp_path, max_steps=1, save_steps=1)
    again.train()  # and what was left is cleared away
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1"]


def test_save_total_limit_keeps_the_newest_and_the_best(compact, rows, tmp_path):
    settings = {"max_steps": 5, "save_steps": 1, "save_total_limit": 2}
    build_trainer(compact.folder, rows, tmp_path, **settings).train()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-4", "checkpoint-5"]
    assert find_last_complete_checkpoint(tmp_path).name == "checkpoint-5"


def test_the_best_model_is_kept_and_loaded_at_the_end(compact, rows, tmp_path):
    trainer = build_trainer(
        compact.folder,
        rows,
        tmp_path,
        max_steps=4,
        save_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        learning_rate=0.02,
    )
    losses = iter([3.0, 1.0, 2.0, 4.0])
    evaluate = trainer.evaluate

    def with_known_losses(*args, **kwargs):
        return {**evaluate(*args, **kwargs), "eval_loss": next(losses)}

    trainer.evaluate = with_known_losses
    trainer.train()
    best = tmp_path / "checkpoint-2"
    assert trainer.state.best_model_checkpoint == str(best)
    assert [path.name for path in tmp_path.iterdir()] == [
        "checkpoint-2"
    ]  # transformers deletes the last one at the end
    saved = type(compact.model).from_pretrained(best).state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in trainer.model.state_dict().items())


def test_a_checkpoint_of_an_abandoned_run_makes_way(compact, rows, tmp_path):
    settings = {"save_steps": 1, "max_steps": 3}
    build_trainer(compact.folder, rows, tmp_path, **settings).train()
    (tmp_path / "checkpoint-2" / "old").touch()
    build_trainer(compact.folder, rows, tmp_path, **settings).train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-1")
    )
    assert not (tmp_path / "checkpoint-2" / "old").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]


# --------------------------------------------------------------------------------------------------------------- killed


@pytest.fixture(scope="module")
def forks() -> Iterator[multiprocessing.context.BaseContext]:
    """Starts processes from one that has imported everything once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(training_runs.__file__).parent), prepend=":")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["training_runs"])
        yield context


def _settings(ordered: bool) -> dict:
    return {"ordered": ordered, "max_steps": STEPS, "save_steps": 1, "save_total_limit": 2}


@pytest.fixture(scope="module", params=[True, False], ids=["mixture in order", "shuffled"])
def uninterrupted(request, compact, rows_of_module, tmp_path_factory) -> tuple[bool, list[dict]]:
    """The loss curve of a run that nobody disturbed."""
    settings = _settings(request.param) | {"save_strategy": "no", "save_total_limit": None}
    trainer = build_trainer(compact.folder, rows_of_module, tmp_path_factory.mktemp("whole"), **settings)
    trainer.train()
    return request.param, curve(trainer)


def _finished(run: Path, whole: list[dict]) -> None:
    assert json.loads(run.with_suffix(".json").read_text(encoding="utf-8")) == whole
    assert sorted(path.name for path in run.iterdir()) == [f"checkpoint-{STEPS - 1}", f"checkpoint-{STEPS}"]
    assert all(why_incomplete(path) is None for path in run.iterdir())


def test_a_killed_run_goes_on_as_if_nothing_had_happened(forks, compact, rows, uninterrupted, tmp_path):
    """Killed while it reads, writes, renames and deletes files (each is a moment to be killed at), and at any time."""
    ordered, whole = uninterrupted
    run, chance = tmp_path / "run", random.Random(1 if ordered else 2)
    before, kills = 0, 0
    for way in ("file", "file", "time", "file", "not") if ordered else ("file", "time", "not"):
        kill_at = chance.randrange(20, 90) if way == "file" else None
        arguments = (compact.folder, rows, run, kill_at, _settings(ordered))
        process = forks.Process(target=training_runs.train_until_killed, args=arguments)
        process.start()
        if way == "time":
            _kill_sometime(process, run, chance.uniform(0.0, 0.3))
        process.join(1200)
        named = [int(path.name.rpartition("-")[2]) for path in run.glob("checkpoint-*")]
        found = find_last_complete_checkpoint(run)
        step = 0 if found is None else int(found.name.rpartition("-")[2])
        assert step == max(named, default=0)  # what has its name is whole
        assert step >= before
        before = step
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        kills += 1
    assert kills >= (2 if ordered else 1)
    assert json.loads(run.with_suffix(".json").read_text(encoding="utf-8")) == whole
    assert sorted(path.name for path in run.iterdir()) == [f"checkpoint-{STEPS - 1}", f"checkpoint-{STEPS}"]
    assert all(why_incomplete(path) is None for path in run.iterdir())


def _kill_sometime(process: multiprocessing.process.BaseProcess, run: Path, seconds: float) -> None:
    """Kills a run, some time after it began to save."""
    begun = time.monotonic()
    while process.is_alive() and not (run / "unfinished").exists() and time.monotonic() < begun + 600:
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
