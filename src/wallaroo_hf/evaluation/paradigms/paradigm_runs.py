"""`compare_paradigms`: one language model, then every family for every seed, each once, then the comparison."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ...families.loading import load_model
from ...families.registry import Family
from ...files.run_lock import only_run
from ...scenes.dataset import DATA_VERSION
from ...training.devices import training_device
from ...training.scenes.scene_builder import OutOfTime
from ...training.stopping import StopWhenAsked
from ..identity import versions
from ..items import items_hash
from ..results import ITEMS_FILE, read_verdicts
from ..scene_reports import write_json
from .base_model import BaseModel
from .measured_training import FINAL, LOOK, SPENT, Course, measure_step, train_course
from .paradigm_records import MANIFEST_FILE, check_settings, file_hashes, parameters_of, read_record
from .paradigm_reports import write_reports
from .paradigm_results import ParadigmResults
from .paradigm_rows import ParadigmRows, items_to_judge, items_to_look_at
from .paradigm_scoring import RIGHT, drawing_costs, judge_run, read_values, share_right, subject_of
from .paradigm_settings import ParadigmSettings, families_to_compare

__all__ = ["compare_paradigms"]

_SAVE_MINUTES = 3.0
_FEW, _MANY, _LONG = 8, 24, 600  # steps that are timed, below and above so many seconds of budget
_LEAST = 64  # steps of a stage that is only measured
Progress = Callable[[str, int, int], None]


def compare_paradigms(
    output: str | Path,
    settings: ParadigmSettings | None = None,
    families: tuple[str, ...] | None = None,
    seeds: int = 3,
    device: str | None = None,
    progress: Progress | None = None,
    stop: StopWhenAsked | None = None,
    check_weights: bool = True,
) -> ParadigmResults:
    """Trains each family from one language model on the same rows for the same time, and judges all alike.

    What is finished is not done again, and what was interrupted goes on from its last checkpoint: the same call goes on,
    to the same results, and a call with more seeds or families adds to them. The folder gets `manifest.json`,
    `results.json`, `paradigms.md`, `curves.png` and `pictures.png`; of each family and seed `FAMILY/seed-N` with the
    trained checkpoint (`final`), its verdicts and pictures (`scores`) and its numbers (`run.json`).

    Args:
        output: folder.
        settings: how large it is, and what is built on what.
        families: by model type; None = all that bring a paradigm.
        seeds: 0, 1, ... so many.
        device: where to compute; None = an accelerator if there is one.
        progress: called as `progress(what, done, total)`.
        stop: who may ask to stop, saved.
        check_weights: whether to look for weights that are not finite.

    Raises:
        OutOfTime: if somebody asked to stop; all that was done is saved.
        ImportError: without what a family's models need, or matplotlib.
        ValueError: for families, parts or rows that cannot be, and a folder with runs of other settings or another process.
    """
    if seeds < 1:
        raise ValueError(f"The number of seeds is {seeds}, but must be at least 1.")
    chosen, output = families_to_compare(families), Path(output)
    settings = settings or ParadigmSettings()
    with only_run(output):
        return _Comparison(
            output, settings, chosen, seeds, training_device(device), progress, stop or StopWhenAsked(), check_weights
        ).run()


class _Comparison:
    def __init__(
        self,
        output: Path,
        settings: ParadigmSettings,
        families: Mapping[str, Family],
        seeds: int,
        device: torch.device,
        progress: Progress | None,
        stop: StopWhenAsked,
        check_weights: bool,
    ) -> None:
        self.output, self.settings, self.families, self.seeds = output, settings, families, seeds
        self.device, self.stop, self.check_weights = device, stop, check_weights
        self._progress = progress or (lambda *_: None)
        self._check_options()
        self.rows = ParadigmRows(settings)
        self.items, self.looked_at = items_to_judge(settings), items_to_look_at(settings)
        self.base = BaseModel(output / "base", settings, self.rows, device, stop, self.report, check_weights)
        self.record = json.loads(json.dumps(self._settings_record()))
        self._descriptions: dict[str, dict[str, Any]] = {}

    def report(self, what: str, done: int, total: int) -> None:
        """Passes on how far it is; ends it where somebody asked to stop.

        Raises:
            OutOfTime: then. While it is trained, the trainer ends it.
        """
        self._progress(what, done, total)
        if self.stop.was_asked and not what.endswith(": steps"):
            raise OutOfTime

    def run(self) -> ParadigmResults:
        """Does what is left to do."""
        for name in self.families:
            for seed in range(self.seeds):
                self._finished(name, seed)  # runs of other settings are refused before anything is trained
        before = read_record(self.output / MANIFEST_FILE)
        if before is not None:
            check_settings(self.output / MANIFEST_FILE, before["settings"], self.record)
        self.base.make()
        self._write_manifest(before)
        base = self.base.answers(self.items.get("understanding", []))
        runs: dict[str, list[Mapping[str, Any]]] = {name: [] for name in self.families}
        todo = [(seed, name) for seed in range(self.seeds) for name in self.families]
        for number, (seed, name) in enumerate(todo):
            self.report("runs", number, len(todo))
            runs[name].append(self._finished(name, seed) or self._train_and_judge(name, seed, base))
        self._progress("runs", len(todo), len(todo))
        results = ParadigmResults(
            self.record, {name: self._describe(name) for name in runs}, self.items, runs, self.base.share(base)
        )
        write_reports(results, self.items["generation"], self.output)
        return results

    # -------------------------------------------------------------------------------------------------------- records

    def _check_options(self) -> None:
        """Parts that no family is built from are refused.

        Raises:
            ValueError: naming one.
        """
        known = {option for family in self.families.values() for option in family.resolve("paradigm").options}
        unused = sorted(self.settings.given.keys() - known)
        if unused:
            raise ValueError(
                f"No family that is compared ({', '.join(self.families)}) is built from `{unused[0]}`; leave it out."
            )

    def _settings_record(self) -> dict[str, Any]:
        """What decides a run, apart from family and seed."""
        return {
            **asdict(self.settings),
            "size": list(self.settings.size),
            "items": {task: items_hash(own) for task, own in self.items.items()},
            "num_items": {task: len(own) for task, own in self.items.items()},
            "looked_at_items": items_hash(self.looked_at),
            "scenes": DATA_VERSION,
            "wallaroo_hf": versions()["wallaroo_hf"],
            "device": self.device.type,
        }

    def _write_manifest(self, before: Mapping[str, Any] | None) -> None:
        described = {} if before is None else dict(before["families"])
        described |= {name: self._describe(name) for name in self.families}
        seeds = max(self.seeds, 0 if before is None else before["seeds"])
        manifest = {"settings": self.record, "seeds": seeds, "families": described, "versions": versions()}
        write_json(manifest, self.output / MANIFEST_FILE)

    def _describe(self, name: str) -> dict[str, Any]:
        """What a family is, and how large."""
        if name not in self._descriptions:
            paradigm, kit = self.families[name].resolve("paradigm"), self.families[name].training_kit()
            parts = self.base.parts()
            model, _ = paradigm.start(parts, 0)
            ratio = self.rows.ratio(kit.tasks)
            stage = paradigm.stage(parts, ratio, _LEAST, self.settings.batch_size)
            settings = stage.to_dict()
            for measured in ("max_steps", "warmup_steps"):
                settings.pop(measured)
            self._descriptions[name] = {
                "title": self.families[name].title,
                "words": paradigm.words,
                "taken": paradigm.taken,
                "task_ratio": ratio,
                "parameters": parameters_of(model, paradigm.codec, lambda one: kit.is_trained(stage, one)),
                "stage": json.loads(json.dumps(settings)),
            }
        return self._descriptions[name]

    def _folder(self, name: str, seed: int) -> Path:
        return self.output / name / f"seed-{seed}"

    def _finished(self, name: str, seed: int) -> Mapping[str, Any] | None:
        """The run of a family for a seed if it is there already.

        Raises:
            ValueError: if it was made with other settings.
        """
        path = self._folder(name, seed) / "run.json"
        run = read_record(path)
        if run is not None:
            check_settings(path, run["settings"], self.record)
        return run

    # ----------------------------------------------------------------------------------------------------------- work

    def _course(self, name: str, seed: int, steps: int) -> Course:
        paradigm, kit, parts = (
            self.families[name].resolve("paradigm"),
            self.families[name].training_kit(),
            self.base.parts(),
        )
        ratio, size = self.rows.ratio(kit.tasks), self.settings.batch_size
        return Course(
            lambda: paradigm.start(parts, seed),
            paradigm.stage(parts, ratio, steps, size),
            self.rows.mixture(ratio, seed, steps * size),
            parts.small,
            seed,
            self.settings.together,
            self.device,
            self.check_weights,
        )

    def _steps(self, name: str) -> dict[str, Any]:
        """How many steps fit into the budget: measured once for all seeds."""
        path = self.output / name / "steps.json"
        measured = read_record(path)
        if measured is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            timed = _FEW if self.settings.budget < _LONG else _MANY
            cost = measure_step(
                self._course(name, 0, _LEAST),
                timed,
                path.parent,
                lambda what, done, total: self.report(f"{name}: measuring {what}", done, total),
            )
            steps = max(1, int(self.settings.budget / cost.seconds))
            measured = {"budget": self.settings.budget, "steps": steps, "device": self.device.type, **asdict(cost)}
            write_json(measured, path)
        check_settings(path, {"budget": measured["budget"]}, {"budget": self.settings.budget})
        return dict(measured)

    def _train_and_judge(self, name: str, seed: int, base: Mapping[str, bool]) -> Mapping[str, Any]:
        folder, label = self._folder(name, seed), f"{name}, seed {seed}"
        measured, family = self._steps(name), self.families[name]
        history = self._train(name, seed, measured["steps"], label)
        model = load_model(family.resolve("model"), folder / FINAL, self.check_weights, dtype=torch.float32)
        subject = subject_of(model.to(self.device).eval(), family.resolve("processor").from_pretrained(folder / FINAL))
        tasks = judge_run(
            subject,
            self.items,
            folder / "scores",
            lambda what, done, total: self.report(f"{label}: {what}", done, total),
        )
        good = read_verdicts(folder / "scores")
        own = {task: self.items[task] for task in tasks}
        losses: dict[str, Any] = next((entry for entry in reversed(history) if "loss" in entry), {})
        run = {
            "settings": self.record,
            "family": name,
            "seed": seed,
            "steps": measured["steps"],
            "seconds": round(max(entry[SPENT] for entry in history if SPENT in entry), 2),
            "flops": measured["flops"] * measured["steps"],
            "looks": [
                {
                    "step": entry["step"],
                    "seconds": round(entry[SPENT], 2),
                    "flops": measured["flops"] * entry["step"],
                    **entry[LOOK],
                }
                for entry in history
                if LOOK in entry
            ],
            "losses": {key: value for key, value in losses.items() if key.startswith("loss")},
            "values": read_values(own, good, folder / "scores", base),
            "drawing_costs": drawing_costs(
                subject, self.items["generation"], family.resolve("paradigm").counted, self.device
            ),
            "files": file_hashes(folder, [FINAL, "scores/pictures", f"scores/{ITEMS_FILE}"]),
            "versions": versions(),
        }
        write_json(run, folder / "run.json")
        return run

    def _train(self, name: str, seed: int, steps: int, label: str) -> list[dict[str, Any]]:
        """Trains unless that is done, and gives the log of it; checkpoints go once the trained model is there."""
        folder = self._folder(name, seed)
        if not (folder / FINAL).exists():
            course = self._course(name, seed, steps)
            processors: dict[int, Any] = {}

            def start() -> tuple[Any, Any]:
                model, processor = course.start()
                processors[0] = processor
                return model, processor

            def look(model: Any) -> dict[str, float]:
                return {RIGHT: share_right(subject_of(model, processors[0]), self.looked_at)}

            at = {max(1, round(steps * number / self.settings.looks)) for number in range(1, self.settings.looks + 1)}
            train_course(
                Course(start, *(getattr(course, one) for one in _OTHERS)),
                folder,
                dict.fromkeys(sorted(at), look),
                _SAVE_MINUTES,
                self.stop,
                lambda what, done, total: self.report(f"{label}: {what}", done, total),
            )
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
        state = json.loads((folder / FINAL / "trainer_state.json").read_text(encoding="utf-8"))
        history: list[dict[str, Any]] = state["log_history"]
        return history


_OTHERS = ("stage", "rows", "small", "seed", "together", "device", "check_weights")
