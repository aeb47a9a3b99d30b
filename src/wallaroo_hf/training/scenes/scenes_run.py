"""A recipe on the scenes as one resumable run: what comes before training, stages, checkpoint; of whatever family."""

import dataclasses
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..._version import __version__
from ...families.loading import load_model
from ...families.precision import computes_in_bf16
from ...families.registry import FAMILIES
from ...files.whole import new_file, new_folder
from ..arguments import WallarooTrainingArguments
from ..callbacks import StageCallback
from ..checkpoints import find_last_complete_checkpoint
from ..devices import training_device
from ..previews import PreviewCallback
from ..reports import plot_losses
from ..stopping import StopWhenAsked
from ..trainer import WallarooTrainer
from .scene_builder import OutOfTime, Recipe, Step

__all__ = ["OutOfTime", "SceneRun"]

Report = Callable[[str], None]


class _Deadline(TrainerCallback):
    """Saves and stops when the time is over, and saves every few minutes before.

    Args:
        deadline: when that is, by `time.monotonic`; None = never.
        save_minutes: minutes between checkpoints.
        note: called with the seconds of computing since the beginning whenever a checkpoint was saved.
    """

    def __init__(self, deadline: float | None, save_minutes: float, note: Callable[[float], None]) -> None:
        self.deadline, self.save_seconds, self.note = deadline, 60 * save_minutes, note
        self.saved, self.began = time.monotonic(), time.process_time()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Asks for a checkpoint, and for an end."""
        now = time.monotonic()
        if self.deadline is not None and now > self.deadline:
            control.should_save = control.should_training_stop = True
        elif now - self.saved > self.save_seconds:
            control.should_save = True
        if control.should_save:
            self.saved = now
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Says what it took so far."""
        self.note(self.seconds)

    @property
    def seconds(self) -> float:
        """Seconds of computing since the beginning."""
        return time.process_time() - self.began


class SceneRun:
    """Trains a small model on the scenes, from nothing to a checkpoint, each part in a folder of its own.

    A part that is finished is not done again; one that was interrupted goes on from its last checkpoint. So the same call,
    repeated, finishes the run whatever stops it. There is a folder for each part, and `checkpoint`; the numbers of all
    parts are in `run.json`.

    Args:
        output: the run's folder.
        recipe: what to train; its family builds what comes before training.
        minutes: stop, saved, after that long; None = no limit.
        save_minutes: minutes between checkpoints.
        report: called with a line for people at every part.
        callbacks: more callbacks for the trainers, a progress bar for example.
        device: where to compute, "cpu" or "cuda"; None = an accelerator if there is one.
        stop: whoever may ask to stop, saved, as when the time is over.

    Raises:
        ValueError: if the folder holds a run of another recipe, or the device is not there.
    """

    def __init__(
        self,
        output: str | Path,
        recipe: Recipe,
        minutes: float | None = None,
        save_minutes: float = 3.0,
        report: Report = lambda line: None,
        callbacks: list[TrainerCallback] | None = None,
        device: str | None = None,
        stop: StopWhenAsked | None = None,
    ) -> None:
        self.output = Path(output)
        self.recipe = recipe
        self.deadline = None if minutes is None else time.monotonic() + 60 * minutes
        self.save_minutes = save_minutes
        self.report = report
        self.stop = stop or StopWhenAsked()
        self.callbacks = [*(callbacks or []), self.stop]
        self.device = training_device(device)
        self.record_path = self.output / "run.json"
        self.builder = recipe.builder(self)
        self.family = FAMILIES[self.builder.family]
        self._begin()

    def _begin(self) -> None:
        ours = json.loads(json.dumps(dataclasses.asdict(self.recipe)))
        if self.record_path.exists():
            theirs = json.loads(self.record_path.read_text(encoding="utf-8"))["recipe"]
            if theirs != ours:
                changed = sorted(key for key in ours if theirs.get(key) != ours[key])
                raise ValueError(
                    f"'{self.output}' holds a run of another recipe ({', '.join(changed)} differ); continue it with its "
                    "own settings, or choose another folder."
                )
            return
        self.output.mkdir(parents=True, exist_ok=True)
        self._write_record({"recipe": ours, "parts": {}})

    # ------------------------------------------------------------------------------------------------------- the run

    def parts(self) -> list[str]:
        """The names of all parts, in order."""
        return [*self.builder.parts(), *(step.name for step in self.recipe.training()), "checkpoint"]

    def run(self, only: str | None = None) -> Path:
        """Does what is left to do.

        Args:
            only: one part; what it builds on must be there.

        Returns:
            The folder of the finished checkpoint (or of the part).

        Raises:
            OutOfTime: when the time is over and something is left to do.
            ValueError: for an unknown part.
        """
        if only is not None and only not in self.parts():
            raise ValueError(f"There is no part {only!r}; there are {', '.join(self.parts())}.")
        steps = {step.name: step for step in self.recipe.training()}
        names = self.parts() if only is None else [only]
        for name in names:
            if self.is_done(name):
                self.report(f"{name}: done")
                continue
            self.report(f"{name}: begins")
            if name == "checkpoint":
                self._write_checkpoint()
            elif name in steps:
                self._train(steps[name])
            else:
                self.builder.make(name)
            if self.is_out_of_time() and name != names[-1]:
                raise OutOfTime
        return self.result(only or "checkpoint")

    def result(self, name: str) -> Path:
        """The folder of what a part makes."""
        if name in self.builder.parts():
            return self.builder.result(name)
        return self.output / name if name == "checkpoint" else self.output / name / "final"

    def is_done(self, name: str) -> bool:
        """Whether a part is finished."""
        if name in self.builder.parts():
            return self.builder.is_done(name)
        return (self.result(name) / "config.json").exists()

    def is_out_of_time(self) -> bool:
        """Whether the time given is over, or somebody asked to stop."""
        return self.stop.was_asked or (self.deadline is not None and time.monotonic() > self.deadline)

    # ------------------------------------------------------------------------------------------------------- parts

    def _train(self, step: Step) -> None:
        model, processor = self.builder.starting_point(step)
        folder, kit = self.output / step.name, self.family.training_kit()
        kit.prepare_for_stage(model, processor, step.stage)
        if self.device.type == "cpu":
            # for short rows the fastest there, above all its backward in bfloat16
            model.set_attn_implementation("eager")
        arguments = self._arguments(step, folder)
        seed = self.recipe.seed + 1 + self.recipe.training().index(step)
        data = self.builder.rows(step, seed)
        checkpoint = find_last_complete_checkpoint(folder)
        before = self._seconds_before(step.name, checkpoint)
        deadline = _Deadline(
            self.deadline, self.save_minutes, lambda seconds: self._note_seconds(step.name, before + seconds)
        )
        every = max(1, step.stage.max_steps // self.recipe.looks)
        previews = PreviewCallback(processor, self.builder.previews(step), every)
        trainer = WallarooTrainer(
            model=model,
            args=arguments,
            train_dataset=data,
            data_collator=kit.collator(processor, step.stage, seed=self.recipe.seed),
            processing_class=processor,
            callbacks=[StageCallback(step.stage), deadline, previews, *self.callbacks],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        history = trainer.state.log_history
        if any("loss" in entry for entry in history):  # transformers' closing summary is there in any case
            plot_losses(history, folder / "losses.png", title=step.name, codebook_size=kit.guesses(model.config))
        self.note(
            step.name,
            {
                "stage": step.stage.to_dict(),
                "steps": trainer.state.global_step,
                "rows": trainer.state.global_step * step.stage.global_batch_size,
                "precision": "bfloat16 autocast" if arguments.bf16 else "float32",
                "process_seconds": round(before + deadline.seconds, 1),
                "last_losses": {key: value for key, value in _last(history).items() if "loss" in key},
            },
        )
        if trainer.state.global_step < step.stage.max_steps:
            raise OutOfTime
        with new_folder(folder / "final") as final:
            trainer.wallaroo.save_pretrained(final)
            processor.save_pretrained(final)

    def _arguments(self, step: Step, folder: Path) -> WallarooTrainingArguments:
        return WallarooTrainingArguments.for_stage(
            step.stage,
            str(folder),
            self.recipe.per_device_batch_size,
            use_muon=True,
            use_cpu=self.device.type == "cpu",
            seed=self.recipe.seed,
            bf16=computes_in_bf16(self.device),
            report_to=[],
            disable_tqdm=True,
            logging_steps=max(1, min(10, step.stage.max_steps // 10)),
            save_strategy="steps",
            save_steps=10**9,  # the clock says when
            save_total_limit=1,
        )

    def _seconds_before(self, name: str, checkpoint: Path | None) -> float:
        """What earlier calls spent on this part."""
        return 0.0 if checkpoint is None else float(self._record()["parts"].get(name, {}).get("process_seconds", 0.0))

    def _write_checkpoint(self) -> None:
        """The last step's weights in bfloat16, the image codec in float32, with the run's numbers beside them."""
        last = self.result(self.recipe.training()[-1].name)
        model = load_model(self.family.resolve("model"), last, dtype=torch.bfloat16)
        processor = self.family.resolve("processor").from_pretrained(last)
        with new_folder(self.output / "checkpoint") as folder:
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
            (folder / "run.json").write_text(self.record_path.read_text(encoding="utf-8"), encoding="utf-8")

    # ------------------------------------------------------------------------------------------------------- numbers

    def _record(self) -> dict[str, Any]:
        return json.loads(self.record_path.read_text(encoding="utf-8"))

    def _write_record(self, record: dict[str, Any]) -> None:
        with new_file(self.record_path) as partial:
            partial.write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")

    def _note_seconds(self, part: str, seconds: float) -> None:
        """Keeps the seconds that a part took until its last checkpoint, for a call that goes on from it."""
        record = self._record()
        record["parts"].setdefault(part, {})["process_seconds"] = round(seconds, 1)
        self._write_record(record)

    def note(self, part: str, numbers: dict[str, Any]) -> None:
        """Writes a part's numbers, and what it ran on."""
        record = self._record()
        record["parts"][part] = numbers | {
            "machine": {
                "processor": platform.processor() or platform.machine(),
                "device": str(self.device),
                "threads": torch.get_num_threads(),
            },
            "versions": {
                "wallaroo_hf": __version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
        }
        self._write_record(record)


def _last(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The last log entry with losses."""
    return next((entry for entry in reversed(history) if "loss" in entry), {})
