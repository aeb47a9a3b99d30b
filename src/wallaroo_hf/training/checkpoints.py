"""Checkpoints that are whole or not there: saving under another name first, and finding the newest complete one."""

import contextlib
import itertools
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ..files.whole import FullDiskError, full_disk_said

__all__ = [
    "ADAPTER_SETTINGS",
    "AtomicCheckpointMixin",
    "find_last_complete_checkpoint",
    "set_checkpoints_aside",
    "why_incomplete",
]

UNFINISHED = "unfinished"  # where a checkpoint is written before it gets its name, and where one goes to be deleted
# Where adapters keep the model's settings: a config.json beside them would pass for a whole checkpoint's.
ADAPTER_SETTINGS = "settings"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_FSDP_WEIGHTS, _FSDP_OPTIMIZER = (
    "pytorch_model_fsdp",
    "optimizer",
)  # accelerate's names, with `.bin` or as folders `_0`
_ADAPTER_WEIGHTS = "adapter_model.safetensors"


def find_last_complete_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest complete checkpoint of a run, or None.

    transformers' own finder takes the highest number, whether its files are whole or not.

    Args:
        output_dir: the run's folder, with `checkpoint-N` folders in it.
    """
    for path in sorted(_checkpoints(Path(output_dir)), key=_number, reverse=True):
        if why_incomplete(path) is None:
            return path
    return None


def set_checkpoints_aside(output_dir: str | Path) -> Path | None:
    """Moves the checkpoints of a run that is started over into a folder of their own, where none is resumed from.

    Left where they are, those with higher numbers than the new run's would be taken for its newest.

    Args:
        output_dir: the run's folder, with `checkpoint-N` folders in it.

    Returns:
        The folder `set-aside-N` that they are in now; None if there are none.
    """
    run_dir = Path(output_dir)
    checkpoints = _checkpoints(run_dir)
    if not checkpoints:
        return None
    number = next(number for number in itertools.count(1) if not (run_dir / f"set-aside-{number}").exists())
    aside = run_dir / f"set-aside-{number}"
    aside.mkdir()
    for path in checkpoints:
        path.rename(aside / path.name)
    return aside


def why_incomplete(checkpoint: str | Path) -> str | None:
    """What a checkpoint lacks to be resumed from, in a few words; None if nothing.

    Looks for readable state, whole weight files (all that an index names; DeepSpeed's and FSDP's own formats too),
    optimizer, scheduler and the states of the random generators. A file that ends too early is found; changed bytes in
    its middle are not.
    """
    folder = Path(checkpoint)
    try:
        state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        int(state["global_step"])
    except (OSError, ValueError, KeyError, TypeError):
        return "trainer_state.json is missing or damaged"
    if not any(folder.glob("rng_state*.pth")):
        return "rng_state.pth is missing"
    for path in sorted(folder.glob("rng_state*.pth")):
        if not zipfile.is_zipfile(path):
            return f"{path.name} is damaged"
    if any(folder.glob("global_step*")) or (folder / "latest").exists():
        return _why_deepspeed_is_incomplete(folder)
    if any(folder.glob(f"{_FSDP_WEIGHTS}*")):
        return _why_fsdp_is_incomplete(folder)
    return _why_weights_are_incomplete(folder) or _why_not_whole(folder / "optimizer.pt", folder / "scheduler.pt")


def _checkpoints(run_dir: Path) -> list[Path]:
    """The `checkpoint-N` folders of a run, in no order."""
    if not run_dir.is_dir():
        return []
    return [path for path in run_dir.iterdir() if _CHECKPOINT.fullmatch(path.name) and path.is_dir()]


def _number(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _why_not_whole(*paths: Path) -> str | None:
    """What is wrong with files of `torch.save`, zip archives whose directory comes last."""
    for path in paths:
        if not path.is_file():
            return f"{path.name} is missing"
        if not zipfile.is_zipfile(path):
            return f"{path.name} is damaged"
    return None


def _why_weights_are_incomplete(folder: Path) -> str | None:
    weights = [folder / name for name in (SAFE_WEIGHTS_NAME, _ADAPTER_WEIGHTS) if (folder / name).is_file()]
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if index.is_file():
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return f"{index.name} is damaged"
        weights = [folder / name for name in sorted(shards)]
    if not weights:
        return "it has no weights"
    for path in weights:
        try:
            with safe_open(path, "pt") as file:
                file.keys()
        except (OSError, SafetensorError):
            return f"{path.name} is missing or damaged"
    return None


def _why_fsdp_is_incomplete(folder: Path) -> str | None:
    """Weights and optimizer as one file each, or as folders whose `.metadata` is written last."""
    for name in (_FSDP_WEIGHTS, _FSDP_OPTIMIZER):
        shards, whole = folder / f"{name}_0", folder / f"{name}.bin"
        if shards.is_dir():
            if not (shards / ".metadata").is_file():
                return f"{shards.name} has no .metadata"
        elif not whole.is_file():
            return f"{whole.name} is missing"
        elif not zipfile.is_zipfile(whole):
            return f"{whole.name} is damaged"
    return _why_not_whole(folder / "scheduler.pt")


def _why_deepspeed_is_incomplete(folder: Path) -> str | None:
    """`latest` names a folder with the states of all processes, and is written last."""
    try:
        states = folder / (folder / "latest").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return "latest is missing or damaged"
    files = sorted(states.glob("*.pt"))
    return _why_not_whole(*files) if files else f"{states.name} is missing or empty"


class AtomicCheckpointMixin:
    """Makes a `Trainer` write each checkpoint under another name and rename it when it is whole.

    Checkpoints that go (`save_total_limit`) lose their name first too. Processes on several machines must share the file
    system of `output_dir`, or save on each machine (`save_on_each_node`).
    """

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
            with _half_removed(final):
                super()._save_checkpoint(model, trial)  # type: ignore[misc]
        finally:
            self._writing_checkpoint = False
            trainer.args.push_to_hub = push
        if trainer.state.best_global_step == trainer.state.global_step:
            trainer.state.best_model_checkpoint = str(final)  # in every process; they all load it in the end
        trainer.accelerator.wait_for_everyone()
        if trainer.args.should_save:
            with _half_removed(final):
                trainer.state.save_to_json(str(written / "trainer_state.json"))
                _flush(written)
            _publish(written, final)
            _rotate(run_dir, final, trainer.args.save_total_limit, trainer.state.best_model_checkpoint)
            shutil.rmtree(run_dir / UNFINISHED, ignore_errors=True)
        trainer.accelerator.wait_for_everyone()
        if push:
            trainer._push_from_checkpoint(str(final))


@contextlib.contextmanager
def _half_removed(final: Path) -> Iterator[None]:
    """Says that the disk is full, and removes what was written of a checkpoint: it would only take room."""
    try:
        with full_disk_said(final):
            yield
    except FullDiskError:
        shutil.rmtree(final.parent / UNFINISHED, ignore_errors=True)
        raise


def _publish(written: Path, final: Path) -> None:
    """Gives a whole checkpoint its name. One of that number, of a run that was resumed from before it, makes way."""
    if final.exists():
        os.replace(final, written.with_name(f"replaced-{_number(final)}"))
    os.replace(written, final)
    _flush_entry(final.parent)


def _rotate(run_dir: Path, newest: Path, limit: int | None, best: str | None) -> None:
    """Deletes the oldest checkpoints but the newest and the best, as transformers does, but never leaves half of one."""
    if limit is None or limit <= 0:
        return
    protected = {newest} if best is None else {newest, run_dir / Path(best).name}
    others = [path for path in _checkpoints(run_dir) if path not in protected]
    others.sort(key=lambda path: (path.stat().st_mtime, _number(path)))
    for path in others[: max(0, len(others) + len(protected) - limit)]:
        os.replace(path, run_dir / UNFINISHED / f"old-{_number(path)}")


def _flush(folder: Path) -> None:
    """Has the system write a folder's files to the disk, so that a renamed folder is whole after a power cut too."""
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir():
            _flush_entry(path)
        else:
            # Windows flushes only what is open for writing; "r+b" changes nothing in the file
            with path.open("r+b" if os.access(path, os.W_OK) else "rb") as file:
                os.fsync(file.fileno())


def _flush_entry(folder: Path) -> None:
    """Flushes the names in a folder, where the system lets one open folders."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
