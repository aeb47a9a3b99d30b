"""The image tokenizer of a checkpoint, alone: loading it without the language model, and telling it from others."""

import hashlib
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoConfig

from ...families.loading import fill_model, load_model, reading_checkpoint, weights_of
from ...modeling.configuration import WallarooConfig, WallarooVQConfig
from ...modeling.vq import WallarooVQModel

__all__ = ["load_vq_model", "tokenizer_hash"]

_PREFIX = "model.vq_model."
# What decides codes and latents; the decoder does not.
_ENCODING_PARTS = ("encoder.", "quant_conv.", "quantize.")


def load_vq_model(name: str | Path, check_weights: bool = True) -> WallarooVQModel:
    """Loads the image tokenizer of a checkpoint; of a sharded one only the files that hold it are read.

    Args:
        name: folder or Hub id of a converted checkpoint, or of an image tokenizer alone (`wallaroo convert --vq-only`).
        check_weights: whether to look for weights that are not finite.

    Raises:
        ValueError: if there is none, or its weights are damaged.
    """
    name, what = str(name), "image tokenizer"
    with reading_checkpoint(name, what):
        config = AutoConfig.from_pretrained(name)
        if isinstance(config, WallarooVQConfig):
            return load_model(WallarooVQModel, name, check_weights, what).eval()
        if not isinstance(config, WallarooConfig):
            raise ValueError(
                f"No {what} could be loaded from '{name}' (it is a {config.model_type} model); give a folder that "
                "`wallaroo convert` wrote, or a Hub id."
            )
        with torch.device("meta"):
            model = WallarooVQModel(config.vq_config)
        weights = _read_weights(name)
    fill_model(model, weights, f"{what} '{name}'", check_weights, assign=True)
    return model.eval().requires_grad_(False)


def _read_weights(name: str) -> dict[str, torch.Tensor]:
    weights = {}
    for file in weights_of(name, _PREFIX):
        with safe_open(file, framework="pt") as tensors:
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
