"""Ctrl-C during training saves; and losses reach files."""

from __future__ import annotations

import os
import signal

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from commands import runner
from helpers import picture
from wallaroo_hf.cli import app
from wallaroo_hf.training.stopping import StopWhenAsked
from wallaroo_hf.training.trainer import WallarooTrainer


@pytest.fixture(autouse=True)
def interrupts():
    """What a terminal sends interrupts: where tests run in a shell's background it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(3):
        picture(index, 32, 32).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"thing {index}")
    return folder


def _train(compact, pictures, output, *more):
    size = ("--set", "buckets=[[32, 32]]", "--set", "indicator_sizes=[32]", "--set", "global_batch_size=1")
    words = ["train", "-m", compact.folder, "--data", pictures, "-o", output, "--device", "cpu", *size, *more]
    return runner.invoke(app, [str(word) for word in words])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_same_command_goes_on(compact, pictures, tmp_path, monkeypatch, number):
    step = WallarooTrainer.training_step

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == 1:
            os.kill(os.getpid(), number)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(WallarooTrainer, "training_step", interrupted)
    before = signal.getsignal(number)
    result = _train(compact, pictures, tmp_path / "run", "--steps", 4)
    assert result.exit_code == 130, result.output
    said = " ".join(result.stderr.split())
    assert "Stopped after step 2 of 4, saved in" in said and "the same command goes on from there" in said
    assert (tmp_path / "run" / "checkpoint-2").is_dir() and not (tmp_path / "run" / "final").exists()
    assert signal.getsignal(number) == before
    monkeypatch.setattr(WallarooTrainer, "training_step", step)
    result = _train(compact, pictures, tmp_path / "run", "--steps", 4)
    assert result.exit_code == 0 and "Going on from" in result.stderr and (tmp_path / "run" / "final").is_dir()


def test_a_second_signal_does_what_it_always_did(tmp_path):
    said = []
    with pytest.raises(KeyboardInterrupt), StopWhenAsked(said.append) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.was_asked and "Ctrl-C again stops at once" in said[0]
        os.kill(os.getpid(), signal.SIGINT)
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    control = stop.on_step_end(arguments, TrainerState(), TrainerControl())
    assert control.should_save and control.should_training_stop


def test_nobody_asked(tmp_path):
    with StopWhenAsked() as stop:
        pass
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    control = stop.on_step_end(arguments, TrainerState(), TrainerControl())
    assert not control.should_save and not control.should_training_stop


def test_losses_are_lines_where_nobody_watches(compact, pictures, tmp_path):
    result = _train(compact, pictures, tmp_path / "run", "--steps", 4, "--log-every", 2)
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("step ")]
    assert [line.split(": loss ")[0] for line in lines] == ["step 2 of 4", "step 4 of 4"]
    assert not [line for line in result.stdout.splitlines() if line.startswith("step ")]  # results only


def test_training_an_image_tokenizer_stops_and_writes_lines_too(tmp_path, monkeypatch):
    from wallaroo_hf.training.vq.vq_training import VQTrainer

    step = VQTrainer.train_step

    def interrupted(self):
        if self.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self)

    monkeypatch.setattr(VQTrainer, "train_step", interrupted)
    words = ["train", "vq", "-o", str(tmp_path / "vq"), "--steps", "40", "--batch-size", "1", "--device", "cpu"]
    result = runner.invoke(app, words)
    assert result.exit_code == 130, result.output
    assert "Stopped after step 2 of 40" in " ".join(result.output.split()) and list(
        (tmp_path / "vq").glob("checkpoint-2")
    )
