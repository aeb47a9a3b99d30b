"""The folder of a run: full disks, modes of its files, and who may write into it."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys

import datasets
import pytest
import torch
from transformers import TrainerState
from typer.testing import CliRunner

from training_runs import build_trainer
from wallaroo_hf.cli import app
from wallaroo_hf.files.checkpoint_files import find_checkpoint
from wallaroo_hf.files.run_lock import LOCK_FILE
from wallaroo_hf.files.whole import FullDiskError
from wallaroo_hf.training.checkpoints import find_last_complete_checkpoint
from wallaroo_hf.training.datasets import load_rows

NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


def no_space(*arguments, **options):
    raise NO_SPACE


def torch_says(*arguments, **options):
    raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")


@pytest.mark.parametrize(("what", "error"), [("weights", no_space), ("optimizer", torch_says), ("state", no_space)])
def test_a_full_disk_while_a_checkpoint_is_written(compact, rows, tmp_path, monkeypatch, what, error):
    run = tmp_path / "run"
    before = os.umask(0o022)
    try:
        trainer = build_trainer(compact.folder, rows, run, max_steps=2, save_steps=1)
        saved = []

        def second(function):
            def save(*arguments, **options):
                saved.append(1)
                return error() if find_last_complete_checkpoint(run) else function(*arguments, **options)

            return save

        if what == "weights":
            monkeypatch.setattr(trainer.model, "save_pretrained", second(trainer.model.save_pretrained))
        elif what == "optimizer":
            monkeypatch.setattr(torch, "save", second(torch.save))
        else:
            monkeypatch.setattr(TrainerState, "save_to_json", second(TrainerState.save_to_json))
        with pytest.raises(FullDiskError, match=r"checkpoint-2'.* run the same command again\.$"):
            trainer.train()
    finally:
        os.umask(before)
    assert saved and os.listdir(run) == ["checkpoint-1"]  # neither half a checkpoint nor the lock
    assert find_last_complete_checkpoint(run) == run / "checkpoint-1"
    assert {stat.S_IMODE(path.stat().st_mode) for path in run.rglob("*") if path.is_file()} == {0o644}


def test_two_trainers_in_one_folder(compact, rows, tmp_path):
    (tmp_path / "run").mkdir()
    lock = tmp_path / "run" / LOCK_FILE
    lock.write_text(json.dumps({"pid": os.getppid()}))
    trainer = build_trainer(compact.folder, rows, tmp_path / "run", max_steps=1)
    with pytest.raises(ValueError, match=rf"Another run is writing into .*process {os.getppid()}"):
        trainer.train()
    assert trainer.state.global_step == 0
    lock.unlink()
    trainer.train()
    assert trainer.state.global_step == 1 and not lock.exists()


COMMANDS = ["train --data DATA --output RUN", "train vq --output RUN", "train scenes --output RUN --tiny"]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_say_who_trains_there(tmp_path, command):
    data, run = tmp_path / "train.jsonl", tmp_path / "run"
    data.write_text('{"question": "a", "answer": "b"}')
    run.mkdir()
    (run / LOCK_FILE).write_text(json.dumps({"pid": os.getppid()}))
    arguments = [{"DATA": str(data), "RUN": str(run)}.get(word, word) for word in command.split()]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1 and f"(process {os.getppid()})" in result.output
    assert (run / LOCK_FILE).exists() and not list(run.glob("checkpoint*"))


def test_a_cache_that_cannot_be_used_says_what_to_set(tmp_path, monkeypatch):
    (tmp_path / "train.jsonl").write_text('{"question": "a", "answer": "b"}')
    (tmp_path / "file").write_text("")
    datasets.Dataset.from_list([{"question": "a", "answer": "b"}]).to_parquet(tmp_path / "a.parquet")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "file" / "cache"))
    for name in ("train.jsonl", "a.parquet"):
        with pytest.raises(
            ValueError, match=r"cache .*file/cache', cannot be used \(Not a directory\); set HF_DATASETS_CACHE"
        ):
            load_rows(tmp_path / name)
        with pytest.raises(ValueError, match="set HF_DATASETS_CACHE"):
            load_rows(tmp_path / name, streaming=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    monkeypatch.setattr("wallaroo_hf.files.checkpoint_files.HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    for read in (load_rows, find_checkpoint):
        with pytest.raises(ValueError, match=r"file/hub', cannot be used .*; set HF_HUB_CACHE \(or HF_HOME"):
            read("org/name")


def test_a_home_that_cannot_be_made_says_what_to_set(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"question": "a", "answer": "b"}')
    (tmp_path / "file").write_text("")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_DATASETS")}
    environment |= {"HF_HOME": str(tmp_path / "file" / "home"), "MPLCONFIGDIR": str(tmp_path / "file" / "mpl")}
    command = [sys.executable, "-m", "wallaroo_hf", "train", "--dry-run", "--data", str(tmp_path / "train.jsonl")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert "set HF_DATASETS_CACHE (or HF_HOME, where it is) to a folder" in line and "Traceback" not in result.stderr


def test_a_full_cache_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "train.jsonl").write_text('{"question": "a", "answer": "b"}')
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.arrow_writer.ArrowWriter.finalize", no_space)
    with pytest.raises(FullDiskError, match=r"No space is left for '.*cache'; make room"):
        load_rows(tmp_path / "train.jsonl")
