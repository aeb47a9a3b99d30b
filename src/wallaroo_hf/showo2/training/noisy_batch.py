"""A batch's pictures as noisy latents, with the velocities that are to be learned: what the frozen codec has part in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from ..block_layout import find_blocks
from ..flow_noise import image_noise, noisy
from ..image_codecs import Posterior

__all__ = ["noisy_batch", "pack_posteriors", "unpack_posterior"]


def noisy_batch(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A batch with latents, times and targets in the place of pixels and of what was encoded ahead.

    Done before the (wrapped) model is called: the codec never trains, computes in its own precision, and how often it runs
    depends on the rows. Latents are drawn from the codec's posterior, with the log variance as the codec has it.

    Args:
        model: not wrapped.
        inputs: from the collator.

    Returns:
        The same with `image_latents`, `velocity_targets` (None for images that are context) and `image_rows`, of those
        batches that have images.
    """
    prepared = dict(inputs)
    pixels, posteriors = prepared.pop("image_pixels", None), prepared.pop("image_posteriors", None)
    seeds = prepared.pop("noise_seeds", None)
    if pixels is None:
        return prepared
    device = prepared["input_ids"].device
    found = _posteriors(model, pixels, posteriors, device)
    latents, targets = [], []
    for posterior, seed, time, is_learned in zip(
        found, seeds, prepared["timesteps"], prepared["image_learned"], strict=True
    ):
        sampled, noise = (one.to(device) for one in image_noise(posterior.mean.shape, seed))
        made = noisy(posterior.at(sampled), noise, time)
        latents.append(made.latents)
        targets.append(made.velocity if is_learned else None)
    prepared["image_latents"], prepared["velocity_targets"] = latents, targets
    prepared["image_rows"] = find_blocks(prepared["input_ids"] == model.config.image_token_id).rows
    return prepared


@torch.no_grad()
def _posteriors(
    model: Any,
    pixels: Sequence[torch.Tensor | None],
    ahead: Sequence[torch.Tensor | None],
    device: torch.device,
) -> list[Posterior]:
    """`(C, h, w)` of each picture; those of one size go through the codec together."""
    found: dict[int, Posterior] = {}
    by_size: dict[torch.Size, list[int]] = defaultdict(list)
    for index, (one, encoded) in enumerate(zip(pixels, ahead, strict=True)):
        if encoded is not None:
            found[index] = unpack_posterior(encoded.to(device).float(), model.config.patch_size)
        else:
            assert one is not None
            by_size[one.shape].append(index)
    for indices in by_size.values():
        together = torch.stack([pixels[index] for index in indices]).to(device)
        encoded = model.vae.encode_images(together)
        for index, mean, log_variance in zip(indices, encoded.mean.float(), encoded.log_variance.float(), strict=True):
            found[index] = Posterior(mean, log_variance)
    return [found[index] for index in range(len(pixels))]


def pack_posteriors(posteriors: Posterior, patch_size: int) -> torch.Tensor:
    """Posteriors `(B, C, h, w)` as they are kept: `(B, 2 * C * patch_size², rows, cols)`, in columns of tokens."""
    return F.pixel_unshuffle(torch.cat([posteriors.mean, posteriors.log_variance], dim=1), patch_size)


def unpack_posterior(packed: torch.Tensor, patch_size: int) -> Posterior:
    """The inverse of [`pack_posteriors`] for one picture.

    Raises:
        ValueError: for an array of another codec.
    """
    if packed.dim() != 3 or packed.shape[0] % (2 * patch_size**2):
        raise ValueError(
            f"Pictures were encoded as arrays of shape {tuple(packed.shape)}, which are no latents of this model; encode "
            "the rows again (`wallaroo encode`)."
        )
    mean, log_variance = F.pixel_shuffle(packed, patch_size).chunk(2)
    return Posterior(mean, log_variance)
