"""Noise of training: how noisy an image is made, and the velocity that leads back; t = 0 is noise, t = 1 the image."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

__all__ = ["CLEAN", "NoisyImage", "draw_time", "image_noise", "noisy", "shifted_time", "time_shift"]

CLEAN = 1.0
_SHORTEST, _LONGEST = (256, 0.5), (4096, 1.15)  # lengths of sequences and their shifts (released code)


class NoisyImage(NamedTuple):
    """An image as a model sees it in training.

    Attributes:
        latents: `x_t`.
        velocity: `x_1 - x_0`, what is to be learned.
    """

    latents: torch.Tensor
    velocity: torch.Tensor


def time_shift(length: int) -> float:
    """mu of an image whose block has so many positions, its time among them: linear, 0.5 at 256 and 1.15 at 4,096."""
    (short, low), (long, high) = _SHORTEST, _LONGEST
    return low + (length - short) * (high - low) / (long - short)


def shifted_time(normal: float, length: int) -> float:
    """The time of a normally distributed number: its sigmoid, moved towards noise, the more the larger the image is.

    Args:
        normal: drawn from the standard normal distribution.
        length: positions of the image's block, its time among them.
    """
    # with s = 1 - t and s <- e^mu / (e^mu + 1/s - 1): 1/s - 1 is e^normal, so that t is the sigmoid of normal - mu
    return 1 / (1 + math.exp(time_shift(length) - normal))


def draw_time(rng: np.random.Generator, length: int) -> float:
    """A time of training for an image whose block has so many positions."""
    return shifted_time(float(rng.standard_normal()), length)


def image_noise(shape: Sequence[int], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The random numbers of one image, float32, on the CPU: equal seeds give equal ones on every machine.

    Args:
        shape: of its latents.
        seed: of the image.

    Returns:
        What its posterior is sampled with, and its noise.
    """
    generator = torch.Generator().manual_seed(seed)
    sampled = torch.randn(*shape, generator=generator)
    return sampled, torch.randn(*shape, generator=generator)


def noisy(latents: torch.Tensor, noise: torch.Tensor, time: float) -> NoisyImage:
    """`x_t = t · x_1 + (1 - t) · x_0`, and the velocity `x_1 - x_0`.

    Args:
        latents: `x_1`, the image.
        noise: `x_0`, of the same shape.
        time: in [0, 1].
    """
    return NoisyImage(time * latents + (1 - time) * noise, latents - noise)
