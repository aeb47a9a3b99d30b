"""What image codecs of every family with continuous latents have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

__all__ = ["ImageCodec", "Posterior", "check_codes", "check_pixels"]


@dataclass(frozen=True)
class Posterior:
    """What a codec sees in pictures or videos: a normal distribution of latents.

    Attributes:
        mean: `(B, C, h, w)`, or `(B, C, T, h, w)` of videos; normalised.
        log_variance: of the same shape, as the codec has it: NOT divided by the normalisation, as the authors sample it.
    """

    mean: torch.Tensor
    log_variance: torch.Tensor

    def sample(self, generators: Sequence[torch.Generator | None] | None = None) -> torch.Tensor:
        """Draws latents, of the same shape.

        Args:
            generators: one for each picture, on any device; None = torch's own.

        Raises:
            ValueError: if there are not as many generators as pictures.
        """
        if generators is None:
            generators = [None] * len(self.mean)
        if len(generators) != len(self.mean):
            raise ValueError(
                f"There are {len(generators)} generators for {len(self.mean)} pictures; give one for each."
            )
        noise = torch.empty_like(self.mean)
        for row, generator in zip(noise, generators, strict=True):
            device = row.device if generator is None else generator.device
            row.copy_(torch.randn(row.shape, generator=generator, device=device, dtype=row.dtype))
        return self.at(noise)

    def at(self, noise: torch.Tensor) -> torch.Tensor:
        """The latents that standard normal noise of the same shape stands for."""
        return self.mean + torch.exp(self.log_variance / 2) * noise


class ImageCodec(Protocol):
    """Pictures to latents and back. It computes in the dtype of its weights, whatever its input has.

    Attributes:
        spatial_factor: pixels for each latent, along either edge.
        latent_channels: of its latents.
    """

    spatial_factor: int
    latent_channels: int

    def encode_images(self, pixels: torch.Tensor) -> Posterior:
        """Latents of pictures `(B, 3, H, W)` or videos `(B, 3, F, H, W)` in [-1, 1]."""

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures or videos, clamped to [-1, 1], of normalised latents `(B, C, h, w)` or `(B, C, T, h, w)`."""


def check_pixels(pixels: torch.Tensor, factor: int) -> None:
    """Makes sure that a codec can take a batch of pictures or videos.

    Args:
        factor: what edges must be multiples of.

    Raises:
        ValueError: if not.
    """
    if pixels.dim() not in (4, 5) or pixels.shape[1] != 3 or not pixels.numel():
        raise ValueError(
            f"Pixels for the image codec have the shape {tuple(pixels.shape)}; give (B, 3, H, W) for pictures or "
            "(B, 3, F, H, W) for videos."
        )
    if not pixels.is_floating_point():
        raise ValueError(
            f"Pixels for the image codec are of the type {pixels.dtype}, but must be floating-point numbers in [-1, 1]."
        )
    height, width = pixels.shape[-2:]
    if height % factor or width % factor:
        raise ValueError(
            f"A picture of {height}x{width} pixels (height x width) does not fit the image codec; use multiples of "
            f"{factor}."
        )


def check_codes(latents: torch.Tensor, channels: int) -> None:
    """Makes sure that a codec can decode a batch of latents.

    Args:
        channels: that they must have.

    Raises:
        ValueError: if not.
    """
    if latents.dim() not in (4, 5) or latents.shape[1] != channels or not latents.numel():
        raise ValueError(
            f"Latents for the image codec have the shape {tuple(latents.shape)}; give (B, {channels}, h, w) for pictures "
            f"or (B, {channels}, T, h, w) for videos."
        )
