"""Image codecs of HieraQuery: diffusers' `AutoencoderKL` and `AutoencoderDC`, Wallaroo's image tokenizer, and pixels."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ..common.image_latents import Posterior, check_codes, check_pixels
from ..families.registry import family_of

__all__ = ["make_pixel_codec"]

_NO_VARIANCE = -30.0  # as good as none, and finite in every dtype


def _certain(latents: torch.Tensor) -> Posterior:
    return Posterior(latents, torch.full_like(latents, _NO_VARIANCE))


class _PixelCodec(nn.Module):
    """Latents that are the pixels themselves."""

    spatial_factor = 1
    latent_channels = 3

    def encode_images(self, pixels: torch.Tensor) -> Posterior:
        check_pixels(pixels, 1)
        return _certain(pixels)

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        check_codes(latents, self.latent_channels)
        return latents.clamp(-1, 1)


class _DiffusersCodec(nn.Module):
    """An autoencoder of diffusers, whose latents are brought to a variance of about 1."""

    def __init__(self, codec_class: Any, arguments: Mapping[str, Any]) -> None:
        super().__init__()
        self.vae = codec_class(**arguments)
        settings = self.vae.config
        self.is_normal = codec_class.__name__ == "AutoencoderKL"  # gives a distribution
        blocks = settings["block_out_channels" if self.is_normal else "encoder_block_out_channels"]
        self.spatial_factor = 2 ** (len(blocks) - 1)
        self.latent_channels = int(settings["latent_channels"])
        self.scale = float(settings["scaling_factor"])
        self.shift = float(settings.get("shift_factor") or 0.0)

    def encode_images(self, pixels: torch.Tensor) -> Posterior:
        check_pixels(pixels, self.spatial_factor)
        with torch.autocast(pixels.device.type, enabled=False):
            seen = self.vae.encode(pixels.to(self.vae.dtype))
        if not self.is_normal:
            return _certain((seen.latent.float() - self.shift) * self.scale)
        normal = seen.latent_dist
        mean = (normal.mean.float() - self.shift) * self.scale
        return Posterior(mean, normal.logvar.float() + 2 * math.log(self.scale))

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        check_codes(latents, self.latent_channels)
        with torch.autocast(latents.device.type, enabled=False):
            pixels: torch.Tensor = self.vae.decode((latents / self.scale + self.shift).to(self.vae.dtype)).sample
        return pixels.clamp(-1, 1)


class _TokenizerCodec(nn.Module):
    """Wallaroo's image tokenizer: vectors of codes, each number of a variance of about 1; decoding takes the nearest."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        super().__init__()
        wallaroo = family_of("wallaroo", "the image codec")
        self.tokenizer = wallaroo.resolve("codec")(wallaroo.resolve("codec_config")(**arguments))
        self.spatial_factor = int(self.tokenizer.config.image_token_size)
        self.latent_channels = int(self.tokenizer.config.embed_dim)

    def encode_images(self, pixels: torch.Tensor) -> Posterior:
        check_pixels(pixels, self.spatial_factor)
        vectors = self.tokenizer.codebook_lookup(self.tokenizer.encode(pixels.float()).image_tokens)
        return _certain(vectors.movedim(-1, 1) * math.sqrt(self.latent_channels))

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        check_codes(latents, self.latent_channels)
        codes = self.tokenizer.quantize(functional.normalize(latents.float().movedim(1, -1), dim=-1))
        pixels: torch.Tensor = self.tokenizer.decode(codes)
        return pixels.clamp(-1, 1)


def make_pixel_codec(settings: Mapping[str, Any]) -> Any:
    """The codec that a configuration names, with weights that are still to be loaded.

    Args:
        settings: `_class_name` ("AutoencoderKL", "AutoencoderDC", "WallarooVQModel" or "pixels") and the arguments of that
            class.

    Returns:
        A module that is an [`ImageCodec`][wallaroo_hf.common.image_latents.ImageCodec].

    Raises:
        ImportError: if it needs diffusers, which cannot be imported.
        ValueError: if there is no such codec, or for settings that it has not.
    """
    name = settings.get("_class_name")
    arguments = {key: value for key, value in settings.items() if not key.startswith("_")}
    if name == "pixels":
        if arguments:
            raise ValueError(f"The image codec 'pixels' has no setting `{min(arguments)}`; remove it.")
        return _PixelCodec()
    if name == "WallarooVQModel":
        return _TokenizerCodec(arguments)
    if name not in ("AutoencoderKL", "AutoencoderDC"):
        raise ValueError(
            f"The image codec is a {name!r}, but this needs AutoencoderKL, AutoencoderDC, WallarooVQModel or pixels."
        )
    try:
        from diffusers.models import autoencoders
    except ImportError as error:
        raise ImportError(
            f"HieraQuery needs diffusers, which cannot be imported ({error}); run `pip install wallaroo-hf[hieraquery]`."
        ) from error
    codec_class = getattr(autoencoders, name)
    unknown = arguments.keys() - inspect.signature(codec_class.__init__).parameters.keys()
    if unknown:
        raise ValueError(f"{name} has no setting `{min(unknown)}`; remove it.")
    return _DiffusersCodec(codec_class, arguments)
