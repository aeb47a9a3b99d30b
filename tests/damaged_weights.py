"""Checkpoints whose weights are damaged in one way each, made from a good one."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HEAD = "generation_head.2.weight"


def _missing(weights: dict[str, torch.Tensor]) -> None:
    del weights[HEAD]


def _unexpected(weights: dict[str, torch.Tensor]) -> None:
    weights["generation_head.3.weight"] = torch.ones(3)


def _misshapen(weights: dict[str, torch.Tensor]) -> None:
    weights[HEAD] = weights[HEAD][:-1].clone()


def _renamed(weights: dict[str, torch.Tensor]) -> None:
    weights["head.2.weight"] = weights.pop(HEAD)


def _nan(weights: dict[str, torch.Tensor]) -> None:
    weights[HEAD].view(-1)[-1] = float("nan")


def _infinite(weights: dict[str, torch.Tensor]) -> None:
    weights[HEAD].view(-1)[0] = -float("inf")


# name -> what is done, and what is said of it
DAMAGES = {
    "missing": (_missing, f"`{HEAD}` is missing"),
    "unexpected": (_unexpected, "`generation_head.3.weight` is unexpected"),
    "misshapen": (_misshapen, f"`{HEAD}` has the shape"),
    "renamed": (_renamed, f"`{HEAD}` is missing, `head.2.weight` is unexpected"),
    "nan": (_nan, "is not finite"),
    "infinite": (_infinite, "is not finite"),
}


def damaged(source: Path, folder: Path, damage: str) -> Path:
    """A copy of a checkpoint in one file, damaged."""
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    DAMAGES[damage][0](weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
