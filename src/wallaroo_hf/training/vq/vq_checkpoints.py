"""Checkpoints of the image tokenizer's training: whole or not there at all, and safetensors only."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ...families.loading import fill_model, reading_checkpoint
from ...files.whole import new_folder
from ...modeling.vq import WallarooVQModel

__all__ = ["newest_checkpoint", "read_checkpoint", "remove_partial", "write_checkpoint", "write_model"]

_WEIGHTS, _STATE, _TENSORS = "model.safetensors", "trainer_state.json", "trainer_state.safetensors"


def newest_checkpoint(folder: Path) -> Path | None:
    """The `checkpoint-N` with the largest N, or None. A folder of that name is always complete."""
    found = _checkpoints(folder)
    return found[-1] if found else None


def remove_partial(folder: Path) -> None:
    """Removes what a run left that was killed while it was writing."""
    for partial in folder.glob(".*-partial-*"):
        shutil.rmtree(partial)


def _checkpoints(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def write_checkpoint(
    folder: Path,
    model: WallarooVQModel,
    tensors: dict[str, torch.Tensor],
    state: dict[str, Any],
    keep: int,
) -> Path:
    """Writes `checkpoint-{state["step"]}` under a temporary name, renames it, then removes all but the newest `keep`.

    A checkpoint of that step that is there already is the same one, and left alone.

    Args:
        tensors: what the trainer must keep beside the weights.
        state: the same as JSON; `step` is the number of steps done.
    """
    checkpoint = folder / f"checkpoint-{state['step']}"
    if checkpoint.exists():
        return checkpoint

    with new_folder(checkpoint, replace=True) as partial:
        model.config.save_pretrained(partial)
        save_file({name: weight.contiguous() for name, weight in model.state_dict().items()}, partial / _WEIGHTS)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial / _TENSORS)
        (partial / _STATE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")

    for old in _checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return checkpoint


def read_checkpoint(checkpoint: Path, model: WallarooVQModel) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Loads the weights into `model` and returns the tensors and the state that `write_checkpoint` was given.

    Raises:
        ValueError: if the checkpoint is of a tokenizer with another configuration, or its weights are damaged.
    """
    state = json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
    saved = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    wanted = json.loads(model.config.to_json_string(use_diff=False))
    for key, value in wanted.items():
        if key in saved and key not in ("transformers_version", "architectures") and saved[key] != value:
            raise ValueError(
                f"'{checkpoint}' is of a tokenizer whose `{key}` is {saved[key]!r}, not {value!r}; resume with the same "
                "configuration, or train into another folder."
            )
    with reading_checkpoint(checkpoint, "checkpoint", "resume from another, or train into another folder"):
        weights = load_file(checkpoint / _WEIGHTS, device=str(model.device))
        tensors = load_file(checkpoint / _TENSORS)
    fill_model(model, weights, f"checkpoint '{checkpoint}'")
    return tensors, state


def write_model(folder: Path, model: WallarooVQModel) -> None:
    """`save_pretrained` that replaces `folder` only when the new one is whole."""
    with new_folder(folder, replace=True) as partial:
        model.save_pretrained(partial)
