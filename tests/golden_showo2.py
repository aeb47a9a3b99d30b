"""Reads what was recorded from Show-o2's authors' code, in the layout of `reference_showo2/`.

The whole of it stands beside the checkout, or where `WALLAROO_REFERENCE_SHOWO2` points; a part of it, fit for a repository,
in `tests/assets/showo2` (made by `tests/assets/make_showo2.py`: nothing in it is ours).
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from wallaroo_hf.showo2 import ShowO2ForConditionalGeneration, convert_showo2

COMPACT = Path(__file__).parent / "assets" / "showo2"
_WHOLE = Path(os.environ.get("WALLAROO_REFERENCE_SHOWO2", Path(__file__).parents[2] / "shared" / "reference_showo2"))
ROOT = _WHOLE if _WHOLE.is_dir() else COMPACT
VAE = ROOT / "vae" / "Wan2.1_VAE_tiny.pth"


def recorded(path: str) -> dict[str, torch.Tensor]:
    """Tensors of a file, such as "tiny_a/velocity"; the test is skipped where only the part is at hand that lacks it."""
    file = ROOT / f"{path}.safetensors"
    if ROOT == COMPACT and not file.is_file():
        pytest.skip(f"{path} is in the whole recording only")
    return load_file(file)


def details(path: str) -> Any:
    """A json file of the recording; skipped as above."""
    file = ROOT / f"{path}.json"
    if ROOT == COMPACT and not file.is_file():
        pytest.skip(f"{path} is in the whole recording only")
    return json.loads(file.read_text(encoding="utf-8"))


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
    return convert_showo2(vae=VAE, output=workspace / dtype, dtype=dtype, **sources("tiny_a", workspace / "sources"))


def load_tiny(folder: Path, **options: Any) -> ShowO2ForConditionalGeneration:
    """A model of a converted folder."""
    return ShowO2ForConditionalGeneration.from_pretrained(folder, **options).eval()
