"""The image codec of a checkpoint, alone: loading it without the language model, and telling it from others."""

import hashlib
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from ...families.loading import fill_model, reading_checkpoint, weights_of
from ..image_codecs import make_codec
from ..showo2_configuration import ShowO2Config

__all__ = ["CodecAlone", "codec_hash", "load_codec"]

_PREFIX = "vae."


class CodecAlone(nn.Module):
    """An image codec with the configuration of the model that it is of.

    Args:
        config: the model's.
        vae: the codec.
    """

    def __init__(self, config: ShowO2Config, vae: nn.Module) -> None:
        super().__init__()
        self.config, self.vae = config, vae


def load_codec(name: str | Path, check_weights: bool = True) -> CodecAlone:
    """Loads the image codec of a checkpoint; of a sharded one only the files that hold it are read.

    Args:
        name: folder or Hub id.
        check_weights: whether to look for weights that are not finite.

    Raises:
        ValueError: if there is none, or its weights are damaged.
    """
    name, what = str(name), "image codec"
    weights = {}
    with reading_checkpoint(name, what):
        config = ShowO2Config.from_pretrained(name)
        codec = make_codec(config.codec_config or {})
        for file in weights_of(name, _PREFIX):
            with safe_open(file, framework="pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118  not a dict
                    if key.startswith(_PREFIX):
                        weights[key.removeprefix(_PREFIX)] = tensors.get_tensor(key).float()
    fill_model(codec, weights, f"{what} '{name}'", check_weights)
    return CodecAlone(config, codec.eval().requires_grad_(False))


def codec_hash(codec: CodecAlone, fit: str) -> str:
    """SHA-256 of all that turns pictures into latents: the weights, and how pictures are brought to a size.

    Args:
        codec: on any device.
        fit: "crop" or "pad", of pictures that are looked at.
    """
    digest = hashlib.sha256(f"{sorted((codec.config.codec_config or {}).items())} {fit}".encode())
    for key, tensor in sorted(codec.vae.state_dict().items()):
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
