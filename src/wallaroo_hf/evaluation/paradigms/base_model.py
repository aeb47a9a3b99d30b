"""The language model that all families grow from: one that is given, or a small one that is trained first; its answers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from ...families.paradigm_contract import ParadigmParts, SmallLanguageModel
from ...families.registry import FAMILIES
from ...scenes.known_words import known_words
from ...scenes.scene import SIZES
from ...training.stopping import StopWhenAsked
from ..items import Item
from ..results import read_verdicts
from ..scene_reports import write_json
from .measured_training import FINAL, Course, measure_step, train_course
from .paradigm_records import check_settings, read_record
from .paradigm_rows import ParadigmRows, questions_only
from .paradigm_scoring import judge_run, subject_of
from .paradigm_settings import ParadigmSettings

__all__ = ["BaseModel"]

_SAVE_MINUTES = 3.0
_TIMED = 8  # steps
_LEAST = 64  # steps of a stage that is only measured
# Areas in pixels between which pictures of the scenes are looked at.
_PIXEL_LIMITS = {"shortest_edge": 32 * 32, "longest_edge": 128 * 128}
Report = Callable[[str, int, int], None]


class BaseModel:
    """A Qwen2.5-VL.

    Args:
        folder: of what is made once, `language-model` among it.
        settings: say whether it is given.
        rows: of the comparison.
        device: where it is trained and asked.
        stop: who may ask to stop, saved.
        report: called as `report(what, done, total)`.
        check_weights: whether to look for weights that are not finite.
    """

    def __init__(
        self,
        folder: Path,
        settings: ParadigmSettings,
        rows: ParadigmRows,
        device: torch.device,
        stop: StopWhenAsked,
        report: Report,
        check_weights: bool,
    ) -> None:
        self.folder, self.settings, self.rows, self.device = folder, settings, rows, device
        self.stop, self.report, self.check_weights = stop, report, check_weights

    @property
    def is_small(self) -> bool:
        """Whether it is trained here."""
        return self.settings.base is None

    def parts(self) -> ParadigmParts:
        """What families are built on."""
        return ParadigmParts(
            language_model=self.folder / "language-model" if self.settings.base is None else self.settings.base,
            small=self.is_small,
            folder=self.folder,
            sizes=(self.settings.size,),
            seen=SIZES if self.is_small else (),
            pictures=self.rows.pictures,
            given=self.settings.given,
            pixel_limits=dict(_PIXEL_LIMITS) if self.is_small else None,
            known_words=known_words() if self.is_small and self.settings.data is None else None,
            check_weights=self.check_weights,
        )

    def make(self) -> None:
        """Trains the small one, or goes on training it: as long as a family is, or its recipe's steps if they are fewer."""
        exported = self.folder / "language-model"
        if not self.is_small or exported.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        maker: SmallLanguageModel = next(
            family.resolve("small_language_model") for family in FAMILIES.values() if family.small_language_model
        )
        steps = self._steps(maker)
        training = self.folder / "training"
        if not (training / FINAL).exists():
            train_course(
                self._course(maker, steps),
                training,
                {},
                _SAVE_MINUTES,
                self.stop,
                lambda what, done, total: self.report(f"language model: {what}", done, total),
            )
        maker.export(training / FINAL, exported)
        for checkpoint in training.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)

    def _steps(self, maker: SmallLanguageModel) -> int:
        path = self.folder / "steps.json"
        measured = read_record(path)
        if measured is None:
            cost = measure_step(
                self._course(maker, _LEAST),
                _TIMED,
                self.folder,
                lambda what, done, total: self.report(f"language model: measuring {what}", done, total),
            )
            steps = max(1, min(maker.steps, int(self.settings.budget / cost.seconds)))
            measured = {"budget": self.settings.budget, "steps": steps, "device": self.device.type, **asdict(cost)}
            write_json(measured, path)
        check_settings(path, {"budget": measured["budget"]}, {"budget": self.settings.budget})
        return int(measured["steps"])

    def _course(self, maker: SmallLanguageModel, steps: int) -> Course:
        size = self.settings.batch_size
        return Course(
            lambda: maker.start(0, known_words()),
            maker.stage(steps, size),
            questions_only(0, steps * size, size),
            True,
            0,
            self.settings.together,
            self.device,
            self.check_weights,
        )

    # -------------------------------------------------------------------------------------------------------- answers

    def answers(self, items: Sequence[Item]) -> dict[str, bool]:
        """Verdicts on its own answers, by item; they are asked for once.

        A new model of a family that answers as it does gives them.

        Args:
            items: questions.
        """
        if not items:
            return {}
        folder = self.folder / "answers"
        paradigm = next(
            family.resolve("paradigm")
            for family in FAMILIES.values()
            if family.paradigm is not None and family.resolve("paradigm").answers_at_once
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".start-", dir=self.folder) as scratch:
            model, processor = paradigm.start(replace(self.parts(), folder=Path(scratch)), 0)
            subject = subject_of(model.to(self.device).eval(), processor)
            judge_run(
                subject,
                {"understanding": list(items)},
                folder,
                lambda what, done, total: self.report(f"language model: {what}", done, total),
            )
        return read_verdicts(folder)

    @staticmethod
    def share(verdicts: Mapping[str, bool]) -> float | None:
        """The share of answers that are right; None without any."""
        return sum(verdicts.values()) / len(verdicts) if verdicts else None
