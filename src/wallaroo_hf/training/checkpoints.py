"""Checkpoints that are whole or not there: saving under another name first, and finding the newest complete one."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.trainer_utils import rotate_checkpoints
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

UNFINISHED = "unfinished"  # where a checkpoint is written before it gets its name
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def find_last_complete_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest complete checkpoint of a run, or None.

    transformers' own finder takes the highest number, whether its files are whole or not.

    Args:
        output_dir: the run's folder, with `checkpoint-N` folders in it.
    """
    folder = Path(output_dir)
    if not folder.is_dir():
        return None
    numbered = [
        (int(match[1]), path)
        for path in folder.iterdir()
        if path.is_dir() and (match := _CHECKPOINT.fullmatch(path.name))
    ]
    for _, path in sorted(numbered, reverse=True):
        if why_incomplete(path) is None:
            return path
    return None


def why_incomplete(checkpoint: str | Path) -> str | None:
    """What a checkpoint lacks to be resumed from, in a few words; None if nothing.

    Looks for readable state, whole weight files (all that an index names), optimizer and scheduler.
    """
    folder = Path(checkpoint)
    try:
        state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        int(state["global_step"])
    except (OSError, ValueError, KeyError, TypeError):
        return "trainer_state.json is missing or damaged"
    names = [SAFE_WEIGHTS_NAME, "adapter_model.safetensors"]
    weights = [folder / name for name in names if (folder / name).is_file()]
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if index.is_file():
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError):
            return f"{index.name} is damaged"
        weights = [folder / name for name in sorted(shards)]
    sharded = any(folder.glob("pytorch_model_fsdp*")) or any(folder.glob("global_step*"))
    if not weights and not sharded:
        return "it has no weights"
    for path in weights:
        try:
            with safe_open(path, "pt") as file:
                file.keys()
        except (OSError, SafetensorError):
            return f"{path.name} is missing or damaged"
    if not sharded:
        for name in ("optimizer.pt", "scheduler.pt"):
            path = folder / name
            if not path.is_file() or path.stat().st_size == 0:
                return f"{name} is missing"
    return None


class AtomicCheckpointMixin:
    """Makes a `Trainer` write each checkpoint under another name and rename it when it is whole."""

    _writing_checkpoint = False

    def _get_output_dir(self, trial: Any) -> str:
        run_dir = super()._get_output_dir(trial)  # type: ignore[misc]
        return os.path.join(run_dir, UNFINISHED) if self._writing_checkpoint else run_dir

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        trainer: Any = self
        run_dir = Path(self._get_output_dir(trial))
        name = f"checkpoint-{trainer.state.global_step}"
        written, final = run_dir / UNFINISHED / name, run_dir / name
        push, trainer.args.push_to_hub = trainer.args.push_to_hub, False
        if trainer.args.should_save:
            shutil.rmtree(run_dir / UNFINISHED, ignore_errors=True)  # what a killed run left
        trainer.accelerator.wait_for_everyone()
        self._writing_checkpoint = True
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
        finally:
            self._writing_checkpoint = False
            trainer.args.push_to_hub = push
        trainer.accelerator.wait_for_everyone()
        if trainer.args.should_save:
            if trainer.state.best_global_step == trainer.state.global_step:
                trainer.state.best_model_checkpoint = str(final)
                trainer.state.save_to_json(str(written / "trainer_state.json"))
            _flush(written)
            shutil.rmtree(final, ignore_errors=True)  # of an earlier run that was resumed from before it
            os.replace(written, final)
            (run_dir / UNFINISHED).rmdir()
            best = trainer.state.best_model_checkpoint
            rotate_checkpoints(str(run_dir), trainer.args.save_total_limit, best, use_mtime=True)
        trainer.accelerator.wait_for_everyone()
        if push:
            trainer._push_from_checkpoint(str(final))


def _flush(folder: Path) -> None:
    """Has the system write a folder's files to the disk, so that a renamed folder is whole after a power cut too."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
