"""The VAE of Wan2.1 as it was released (`Wan2.1_VAE.pth`): sizes read off its tensors, names as diffusers has them."""

from collections.abc import Mapping
from typing import Any

import torch

from ...conversion.released_weights import check_complete
from ..image_codecs import make_codec

__all__ = ["read_vae"]

_REMEDY = "give Wan2.1_VAE.pth"


def read_vae(source: Mapping[str, torch.Tensor], channels: int) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The codec's configuration, and its tensors by diffusers' names.

    Args:
        source: tensors by their released names.
        channels: that latents must have.

    Returns:
        `codec_config` of [`ShowO2Config`], and the tensors.

    Raises:
        ValueError: if they are those of another VAE.
        ImportError: if diffusers is missing.
    """
    settings = _sizes(source)
    if settings["z_dim"] != channels:
        raise ValueError(
            f"The VAE has latents of {settings['z_dim']} channels, but the checkpoint needs {channels}; {_REMEDY}."
        )
    try:
        with torch.device("meta"):
            codec = make_codec(settings)
    except (ValueError, RuntimeError, ArithmeticError, LookupError) as error:
        raise ValueError(f"The VAE is not that of Wan2.1 ({error}); {_REMEDY}.") from error
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    tensors = convert_wan_vae_to_diffusers(dict(source))
    if len(tensors) != len(source):
        raise ValueError(f"The VAE has tensors that get one name; {_REMEDY}.")
    check_complete(tensors, codec.state_dict(), "VAE", ("the sizes of its first layers", "its tensors"))
    settings |= {name: list(codec.config[name]) for name in ("latents_mean", "latents_std")}
    return settings, tensors


def _sizes(source: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """What the encoder's layers say: residual blocks level by level, with a layer that halves behind all but the last."""
    try:
        base = source["encoder.conv1.weight"].shape[0]
        layers: dict[int, set[str]] = {}
        for name in source:
            if name.startswith("encoder.downsamples."):
                number, _, part = name.removeprefix("encoder.downsamples.").partition(".")
                layers.setdefault(int(number), set()).add(part)
        halvings = [number for number, parts in sorted(layers.items()) if "resample.1.weight" in parts]
        ends = [*halvings, len(layers)]
        starts = [0, *(number + 1 for number in halvings)]
        widths = [source[f"encoder.downsamples.{start}.residual.2.weight"].shape[0] for start in starts]
        attended = [
            level
            for level, (start, end) in enumerate(zip(starts, ends, strict=True))
            if any("to_qkv.weight" in layers[number] for number in range(start, end))
        ]
        blocks = sum("residual.2.weight" in layers[number] for number in range(ends[0]))
        settings = {
            "type": "wan",
            "base_dim": base,
            "z_dim": source["conv2.weight"].shape[0],
            "dim_mult": [width // base for width in widths],
            "num_res_blocks": blocks,
            "attn_scales": [0.5**level for level in attended],
            "temperal_downsample": ["time_conv.weight" in layers[number] for number in halvings],
            "scale_factor_spatial": 2 ** len(halvings),
            "scale_factor_temporal": 2 ** sum("time_conv.weight" in layers[number] for number in halvings),
        }
        decoder_base = source["decoder.head.2.weight"].shape[1]
    except (LookupError, ValueError, ArithmeticError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else "its tensors have other shapes"
        raise ValueError(f"The VAE is not that of Wan2.1 ({reason}); {_REMEDY}.") from error
    return settings if decoder_base == base else settings | {"decoder_base_dim": decoder_base}
