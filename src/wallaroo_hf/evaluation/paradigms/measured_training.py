"""Training for a number of steps that was measured to fit a budget: resumable at any moment, looked at on the way.

What a run has spent, and what was seen of it, is part of its checkpoints (in `trainer_state.json`), so a run that was
killed goes on with the numbers of the checkpoint that it goes on from.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ...families.precision import computes_in_bf16
from ...families.registry import kit_of
from ...families.training_stages import TrainingStage
from ...files.whole import new_folder
from ...training.arguments import WallarooTrainingArguments
from ...training.callbacks import StageCallback
from ...training.checkpoints import find_last_complete_checkpoint
from ...training.scenes.scene_builder import OutOfTime
from ...training.stopping import StopWhenAsked
from ...training.trainer import WallarooTrainer
from ..item_outputs import evaluation_mode

__all__ = ["Clock", "Course", "StepCost", "counting_flops", "measure_step", "train_course"]

FINAL = "final"
_WARM_UP, _COUNTED = 3, 2  # steps of a measurement: those that do not count, and those whose FLOPs do
_LOGS = 40  # entries of losses in a run
SPENT, LOOK = "spent_seconds", "look"
Look = Callable[[Any], Mapping[str, float]]
Report = Callable[[str, int, int], None]


class Clock:
    """Seconds of computing: of this process on a CPU, of the clock on an accelerator, whose work is waited for.

    Args:
        device: where is computed.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def now(self) -> float:
        """Seconds since some moment."""
        if self.device.type == "cpu":
            return time.process_time()
        torch.accelerator.synchronize()
        return time.perf_counter()


@dataclass(frozen=True)
class Course:
    """One run of training.

    Attributes:
        start: makes model and processor.
        stage: how it is trained.
        rows: what it learns from, in order.
        small: whether it learns as small models do, with Muon.
        seed: of all that is drawn by chance in training.
        together: rows in one forward.
        device: where it is trained.
        check_weights: whether to look for weights that are not finite.
    """

    start: Callable[[], tuple[Any, Any]]
    stage: TrainingStage
    rows: Any
    small: bool
    seed: int
    together: int
    device: torch.device
    check_weights: bool = True


@dataclass(frozen=True)
class StepCost:
    """What a step of training takes.

    Attributes:
        seconds: as [`Clock`] has them, rows included; the mean of some steps.
        flops: floating-point operations of matrix products and convolutions, forwards, backwards and optimizer.
    """

    seconds: float
    flops: float


@contextlib.contextmanager
def counting_flops() -> Any:
    """Counts the floating-point operations of what runs meanwhile, attention by its matrix products.

    Gives:
        An object with `get_total_flops()`.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter


def measure_step(course: Course, steps: int, folder: Path, report: Report) -> StepCost:
    """Trains a few steps on weights that are thrown away.

    Args:
        course: what is trained; its stage has at least as many steps as are taken here.
        steps: that are timed.
        folder: for temporary files.
        report: called as `report("steps", done, total)`.
    """
    meter = _StepMeter(Clock(course.device), steps)
    with tempfile.TemporaryDirectory(prefix=".measuring-", dir=folder) as scratch:
        model, processor = course.start()
        shown = _Shown(report, meter.total)
        _trainer(course, model, processor, Path(scratch), [meter, shown], max_steps=meter.total).train()
    return StepCost(sum(meter.seconds) / len(meter.seconds), meter.flops / _COUNTED)


def train_course(
    course: Course,
    folder: Path,
    looks: Mapping[int, Look],
    save_minutes: float,
    stop: StopWhenAsked,
    report: Report,
) -> list[dict[str, Any]]:
    """Trains, or goes on training, until `final` is in the folder.

    Args:
        course: what is trained; equal ones give equal weights, also where a run was interrupted.
        folder: of checkpoints and the trained model.
        looks: by step, what is looked at behind it; neither weights nor the time spent depend on it.
        save_minutes: between checkpoints.
        stop: who may ask to stop, saved.
        report: called as `report("steps", done, total)`.

    Returns:
        The trainer's log: losses, `spent_seconds`, and what `looks` gave.

    Raises:
        OutOfTime: if somebody asked to stop before the end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model, processor = course.start()
    meter = _Meter(Clock(course.device), looks, 60 * save_minutes)
    trainer = _trainer(course, model, processor, folder, [_Shown(report, course.stage.max_steps), stop, meter])
    checkpoint = find_last_complete_checkpoint(folder)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if trainer.state.global_step < course.stage.max_steps:
        raise OutOfTime
    with new_folder(folder / FINAL) as final:
        trainer.wallaroo.save_pretrained(final)
        processor.save_pretrained(final)
        trainer.state.save_to_json(str(final / "trainer_state.json"))
    history: list[dict[str, Any]] = trainer.state.log_history
    return history


def _trainer(
    course: Course,
    model: Any,
    processor: Any,
    folder: Path,
    callbacks: list[TrainerCallback],
    max_steps: int | None = None,
) -> WallarooTrainer:
    kit, stage = kit_of(model), course.stage
    kit.prepare_for_stage(model, processor, stage)
    on_cpu = course.device.type == "cpu"
    if on_cpu:
        model.set_attn_implementation("eager")  # for short rows the fastest there, and its products are counted
    steps = stage.max_steps if max_steps is None else max_steps
    arguments = WallarooTrainingArguments.for_stage(
        stage,
        str(folder),
        course.together,
        use_muon=course.small,
        use_cpu=on_cpu,
        seed=course.seed,
        bf16=computes_in_bf16(course.device) if course.small else stage.bf16 and not on_cpu,
        report_to=[],
        disable_tqdm=True,
        max_steps=steps,
        logging_steps=max(1, steps // _LOGS),
        save_strategy="steps" if max_steps is None else "no",
        save_steps=10**9,  # the clock says when
        save_total_limit=1,
        check_weights=course.check_weights,
    )
    trainer = WallarooTrainer(
        model=model,
        args=arguments,
        train_dataset=course.rows,
        data_collator=kit.collator(processor, stage, seed=course.seed),
        processing_class=processor,
        callbacks=[StageCallback(stage), *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


class _Shown(TrainerCallback):
    """Tells how far training is."""

    def __init__(self, report: Report, total: int) -> None:
        self.report, self.total = report, total

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.report("steps", state.global_step, self.total)


class _StepMeter(TrainerCallback):
    """Times steps, and counts the operations of the last ones."""

    def __init__(self, clock: Clock, steps: int) -> None:
        self.clock, self.total = clock, _WARM_UP + steps + _COUNTED
        self.seconds: list[float] = []
        self.flops = 0.0
        self._timed = range(_WARM_UP + 1, _WARM_UP + steps + 1)
        self._last = 0.0
        self._counting: contextlib.ExitStack | None = None
        self._counter: Any = None

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step + 1 > self.total - _COUNTED:
            self._counting = contextlib.ExitStack()
            self._counter = self._counting.enter_context(counting_flops())

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._counting is not None:
            self._counting.close()
            self.flops += float(self._counter.get_total_flops())
            self._counting = None
        now = self.clock.now()
        if state.global_step in self._timed:
            self.seconds.append(now - self._last)
        self._last = now


class _Meter(TrainerCallback):
    """Adds up what training takes, looks on the way, and saves every few minutes; looks and checkpoints take none of it.

    It must be the last of the callbacks: those before it may ask for a checkpoint, which has to say what was spent.

    Args:
        clock: how time is measured.
        looks: by step.
        save_seconds: between checkpoints.
    """

    def __init__(self, clock: Clock, looks: Mapping[int, Look], save_seconds: float) -> None:
        self.clock, self.looks, self.save_seconds = clock, looks, save_seconds
        self.spent, self._mark, self._saved = 0.0, 0.0, time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.spent = max((entry[SPENT] for entry in state.log_history if SPENT in entry), default=0.0)
        self._mark = self.clock.now()

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> TrainerControl:
        self.spent += self.clock.now() - self._mark
        if state.global_step in self.looks:
            with torch.random.fork_rng(), evaluation_mode(model), torch.no_grad():
                seen = dict(self.looks[state.global_step](model))
            state.log_history.append({"step": state.global_step, SPENT: self.spent, LOOK: seen})
        if time.monotonic() - self._saved > self.save_seconds:
            control.should_save = True
        if control.should_save or state.global_step >= state.max_steps:
            state.log_history.append({"step": state.global_step, SPENT: self.spent})
            self._saved = time.monotonic()
        self._mark = self.clock.now()
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._mark = self.clock.now()
