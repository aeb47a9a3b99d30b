"""Image codecs of Show-o2: what they have in common, the linear one, and which one a configuration names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import initialization as init

from ..common.image_latents import ImageCodec, Posterior, check_codes, check_pixels

__all__ = ["ImageCodec", "LinearCodec", "Posterior", "check_codes", "check_pixels", "make_codec"]

_LOWEST_LOG_VARIANCE = -30.0  # as good as none, and finite in every dtype


class LinearCodec(nn.Module):
    """Patches of pixels to as many numbers as latents have channels, by a matrix with orthonormal columns, and back.

    Nothing in it is trained by gradients: [`fit`] computes it from pictures. Until then it keeps few pixels of a patch.
    Frames of videos are pictures by themselves.

    Args:
        channels: of latents.
        patch: edge of one latent in pixels.

    Raises:
        ValueError: if a patch has fewer numbers than latents have channels.
    """

    mean: torch.Tensor  # (3 * patch * patch,)
    basis: torch.Tensor  # (3 * patch * patch, channels)
    scale: torch.Tensor  # (channels,)

    def __init__(self, channels: int = 16, patch: int = 8) -> None:
        super().__init__()
        width = 3 * patch**2
        if not 1 <= channels <= width:
            raise ValueError(
                f"A linear codec with {channels} channels does not fit patches of {width} numbers (`patch` = {patch}); "
                f"give from 1 to {width} channels."
            )
        self.spatial_factor = patch
        self.latent_channels = channels
        self.register_buffer("mean", torch.empty(width))
        self.register_buffer("basis", torch.empty(width, channels))
        self.register_buffer("scale", torch.empty(channels))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As before [`fit`]."""
        init.zeros_(self.mean)
        init.eye_(self.basis)
        init.ones_(self.scale)

    @torch.no_grad()
    def fit(self, pictures: Iterable[torch.Tensor]) -> LinearCodec:
        """Makes the latents the principal components of the patches of pictures, each with a variance of 1.

        Args:
            pictures: `(3, H, W)` in [-1, 1], of any sizes that patches divide; read once, one at a time.

        Returns:
            Itself.

        Raises:
            ValueError: if there are no pictures, or patches do not divide one.
        """
        width = len(self.mean)
        count, total, products = (
            0,
            torch.zeros(width, dtype=torch.float64),
            torch.zeros(width, width, dtype=torch.float64),
        )
        for picture in pictures:
            check_pixels(picture[None], self.spatial_factor)
            patches = functional.pixel_unshuffle(picture.to("cpu", torch.float64), self.spatial_factor).flatten(1)
            count += patches.shape[1]
            total += patches.sum(1)
            products += patches @ patches.T
        if not count:
            raise ValueError("There are no pictures to fit a linear codec to; give at least one.")
        mean = total / count
        variances, vectors = torch.linalg.eigh(products / count - torch.outer(mean, mean))  # smallest first
        basis = vectors.flip(1)[:, : self.latent_channels]
        # an eigenvector's sign is arbitrary: its largest number is positive here, so that a fit can be repeated
        basis = basis * basis.gather(0, basis.abs().argmax(0, keepdim=True)).sign()
        deviations = variances.flip(0)[: self.latent_channels].clamp(min=0).sqrt()
        self.mean.copy_(mean)
        self.basis.copy_(basis)
        self.scale.copy_(
            torch.where(deviations > 1e-6, deviations, 1.0)
        )  # of what pictures do not vary in: left alone
        return self

    def encode_images(self, pixels: torch.Tensor) -> Posterior:
        """See [`ImageCodec`]. There is no uncertainty.

        Raises:
            ValueError: for pixels of another shape, or that patches do not divide.
        """
        check_pixels(pixels, self.spatial_factor)
        frames = _frames(pixels.to(self.basis))
        with torch.autocast(pixels.device.type, enabled=False):
            patches = functional.pixel_unshuffle(frames, self.spatial_factor).movedim(1, -1)
            latents = ((patches - self.mean) @ self.basis / self.scale).movedim(-1, 1)
        mean = _unframed(latents, pixels)
        return Posterior(mean, torch.full_like(mean, _LOWEST_LOG_VARIANCE))

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """See [`ImageCodec`].

        Raises:
            ValueError: for latents of another shape.
        """
        check_codes(latents, self.latent_channels)
        frames = _frames(latents.to(self.basis))
        with torch.autocast(latents.device.type, enabled=False):
            patches = ((frames.movedim(1, -1) * self.scale) @ self.basis.T + self.mean).movedim(-1, 1)
            pixels = functional.pixel_shuffle(patches, self.spatial_factor)
        return _unframed(pixels, latents).clamp(-1, 1)


def _frames(batch: torch.Tensor) -> torch.Tensor:
    """`(B, C, T, h, w)` as pictures `(B * T, C, h, w)`; pictures as they are."""
    return batch if batch.dim() == 4 else batch.transpose(1, 2).flatten(0, 1)


def _unframed(pictures: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Back from [`_frames`] of a batch `like` that."""
    return pictures if like.dim() == 4 else pictures.unflatten(0, (len(like), like.shape[2])).transpose(1, 2)


def make_codec(settings: Mapping[str, Any]) -> Any:
    """The codec that a configuration names, with weights that are still to be loaded.

    Args:
        settings: `type` and the arguments of that type: of [`LinearCodec`] for "linear", of diffusers' `AutoencoderKLWan`
            for "wan".

    Returns:
        A module that is an [`ImageCodec`].

    Raises:
        ValueError: for a type, arguments or sizes that there are not.
        ImportError: if it needs diffusers, which is not installed.
    """
    arguments = dict(settings)
    kind = arguments.pop("type", None)
    if kind == "linear":
        codec: Any = LinearCodec
        known = {"channels", "patch"}
    elif kind == "wan":
        codec, known = _wan()
    else:
        raise ValueError(f"`codec_config` has the type {kind!r}, but there are 'wan' and 'linear'; name one of them.")
    unknown = sorted(arguments.keys() - known)
    if unknown:
        raise ValueError(
            f"`codec_config` has the setting `{unknown[0]}`, which a codec of the type '{kind}' has not; it has "
            f"{', '.join(sorted(known))}."
        )
    return codec(**arguments)


def _wan() -> tuple[Any, set[str]]:
    try:
        from .wan_codec import SETTINGS, WanCodec
    except ImportError as error:
        raise ImportError(
            f"The image codec of Show-o2 is diffusers' `AutoencoderKLWan`, which cannot be imported ({error}); run "
            "`pip install wallaroo-hf[showo2]`."
        ) from error
    return WanCodec, SETTINGS
