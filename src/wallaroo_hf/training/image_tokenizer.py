"""The image tokenizer of a checkpoint, alone: loading it without the language model, and telling it from others."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig
from transformers.utils import cached_file

from ..modeling.configuration import WallarooConfig, WallarooVQConfig
from ..modeling.vq import WallarooVQModel

__all__ = ["load_vq_model", "tokenizer_hash"]

_PREFIX = "model.vq_model."
# What decides codes and latents; the decoder does not.
_ENCODING_PARTS = ("encoder.", "quant_conv.", "quantize.")


def load_vq_model(name: str | Path) -> WallarooVQModel:
    """Loads the image tokenizer of a checkpoint; of a sharded one only the files that hold it are read.

    Args:
        name: folder or Hub id of a converted checkpoint, or of an image tokenizer alone (`wallaroo convert --vq-only`).

    Raises:
        ValueError: if there is none, or it is damaged.
    """
    name = str(name)
    try:
        config = AutoConfig.from_pretrained(name)
        if isinstance(config, WallarooVQConfig):
            return WallarooVQModel.from_pretrained(name).eval()
        if not isinstance(config, WallarooConfig):
            raise ValueError(f"it is a {config.model_type} model")
        with torch.device("meta"):
            model = WallarooVQModel(config.vq_config)
        model.load_state_dict(_read_weights(name), assign=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(
            f"No image tokenizer could be loaded from '{name}' ({reason}); give a folder that `wallaroo convert` wrote, "
            "or a Hub id."
        ) from error
    return model.eval().requires_grad_(False)


def _read_weights(name: str) -> dict[str, torch.Tensor]:
    index = cached_file(name, "model.safetensors.index.json", _raise_exceptions_for_missing_entries=False)
    files = ["model.safetensors"]
    if index is not None:
        weight_map = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"]
        files = sorted({file for key, file in weight_map.items() if key.startswith(_PREFIX)})
    weights = {}
    for file in files:
        with safe_open(cached_file(name, file), framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118  not a dict
                if key.startswith(_PREFIX):
                    weights[key.removeprefix(_PREFIX)] = tensors.get_tensor(key).float()
    return weights


def tokenizer_hash(vq_model: WallarooVQModel) -> str:
    """SHA-256 of the weights that turn pixels into codes and latents: equal hashes give equal codes.

    Raises:
        ValueError: if the weights are offloaded.
    """
    digest = hashlib.sha256()
    for key, tensor in sorted(vq_model.state_dict().items()):
        if not key.startswith(_ENCODING_PARTS):
            continue
        if tensor.is_meta:
            raise ValueError("The image tokenizer's weights are offloaded; load it onto a device.")
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
