"""Which checkpoint was evaluated, and with which software."""

from __future__ import annotations

import hashlib
import json
import platform
from typing import Any

import numpy
import torch
import transformers

from .._version import __version__
from ..scenes.dataset import DATA_VERSION

# of configurations, what says nothing about what the model computes (the weights say their own dtype)
_ADVICE = ("sensible_ranges", "untrained_tasks")  # of the generation config
_PASSING = ("_name_or_path", "transformers_version", "dtype", "_from_model_config")


def checkpoint_hash(model: Any, processor: Any) -> str:
    """SHA-256 of all that decides what a checkpoint draws and answers, sampling settings apart.

    These are the weights in the precision that they were loaded in, the model's and the processor's configuration,
    vocabulary and chat template, and the generation config without its `image_` entries, which are recorded one by one.

    Raises:
        ValueError: if weights are offloaded.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.is_meta:
            raise ValueError(
                "Some of the model's weights are offloaded; load it whole onto its devices to evaluate it."
            )
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    generation = {
        key: value
        for key, value in model.generation_config.to_dict().items()
        if not key.startswith("image_") and key not in _ADVICE
    }
    settings = [
        *(model.config.to_dict(), generation, processor.to_dict()),
        *(processor.tokenizer.get_vocab(), processor.chat_template),
    ]
    digest.update(json.dumps(_lasting(settings), sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _lasting(entry) for key, entry in value.items() if key not in _PASSING}
    return [_lasting(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def versions() -> dict[str, str]:
    """Versions of what takes part."""
    return {
        "wallaroo_hf": __version__,
        "scenes": DATA_VERSION,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }
