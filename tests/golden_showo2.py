"""Reads what was recorded from Show-o2's authors' code, in the layout of `reference_showo2/`.

The whole of it stands beside the checkout, or where `WALLAROO_REFERENCE_SHOWO2` points; a part of it, fit for a repository,
in `tests/assets/showo2` (made by `tests/assets/make_showo2.py`: nothing in it is ours).
"""

from __future__ import annotations

import functools
import json
import lzma
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from released_showo2 import released_vae
from wallaroo_hf.showo2 import ShowO2ForConditionalGeneration, convert_showo2

COMPACT = Path(__file__).parent / "assets" / "showo2"
_WHOLE = Path(os.environ.get("WALLAROO_REFERENCE_SHOWO2", Path(__file__).parents[2] / "shared" / "reference_showo2"))
ROOT = _WHOLE if _WHOLE.is_dir() else COMPACT
VAE = ROOT / "vae" / "Wan2.1_VAE_tiny.pth"


def recorded_file(path: str) -> Path:
    """A file of the recording, such as "preprocess/in0.png"; the test is skipped where only the part at hand lacks it."""
    file = ROOT / path
    if ROOT == COMPACT and not file.is_file():
        pytest.skip(f"{path} is in the whole recording only")
    return file


def _content(path: str) -> bytes:
    """Of a file that the compact set may have packed with xz."""
    packed = ROOT / f"{path}.xz"
    return lzma.decompress(packed.read_bytes()) if packed.is_file() else recorded_file(path).read_bytes()


def recorded(path: str, *needed: str) -> dict[str, torch.Tensor]:
    """Tensors of a recording, such as "tiny_a/velocity"; skipped as above, also where only the part lacks one of `needed`.

    The compact set has some of them, and of logits the last positions: compare [`last`] of yours.
    """
    tensors = load(_content(f"{path}.safetensors"))
    lacking = [name for name in needed if name not in tensors]
    if ROOT == COMPACT and lacking:
        pytest.skip(f"`{lacking[0]}` of {path} is in the whole recording only")
    return tensors


def details(path: str) -> Any:
    """A json file of the recording; skipped as above."""
    return json.loads(_content(f"{path}.json"))


def last(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Of logits `(B, T, vocab_size)` as many of the last positions as were recorded: all in the whole recording."""
    return ours[:, -theirs.shape[1] :]


def vae_file(workspace: Path) -> Path:
    """The tiny VAE by its released names: the recorded one, or one with random weights where only the part is at hand."""
    if ROOT != COMPACT:
        return VAE
    made = workspace / VAE.name
    if not made.is_file():
        workspace.mkdir(parents=True, exist_ok=True)
        torch.save(released_vae(), made)
    return made


def sources(name: str, workspace: Path) -> dict[str, Any]:
    """What [`convert_showo2`] takes for a recorded checkpoint, `vae` and `output` apart.

    Args:
        name: of the checkpoint, "tiny_a".
        workspace: for the folders of language model and SigLIP, which hold a configuration only.
    """
    folder = ROOT / name / "checkpoint"
    for part, file in (("base", "llm_config.json"), ("vision", "siglip_config.json")):
        (workspace / part).mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / file, workspace / part / "config.json")
    return {
        "checkpoint": folder,
        "base": workspace / "base",
        "vision": workspace / "vision",
        "token_ids": json.loads((folder / "token_ids.json").read_text(encoding="utf-8")),
    }


@functools.cache
def converted(workspace: Path, dtype: str = "float32") -> Path:
    """The folder of tiny_a, converted once."""
    given = sources("tiny_a", workspace / "sources")
    return convert_showo2(vae=vae_file(workspace / "sources"), output=workspace / dtype, dtype=dtype, **given)


def load_tiny(folder: Path, **options: Any) -> ShowO2ForConditionalGeneration:
    """A model of a converted folder."""
    return ShowO2ForConditionalGeneration.from_pretrained(folder, **options).eval()
