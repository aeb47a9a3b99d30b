"""A batch's pictures as latents, features and noise: what the frozen parts, and chance, have part in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .hieraquery_collator import PICTURE_ITEMS
from .picture_side import PictureSide

__all__ = ["draw_noise", "prepare_pictures"]


def prepare_pictures(model: Any, inputs: Mapping[str, Any], draws: int, sigma_shift: float) -> dict[str, Any]:
    """A batch with latents, features and noise in the place of pictures and of what was encoded ahead.

    Done before the (wrapped) model is called: codec and vision encoder never train, compute in their own precision, and how
    often they run depends on the rows.

    Args:
        model: not wrapped.
        inputs: from the collator.
        draws: times that each picture is noised.
        sigma_shift: see [`~hieraquery_stages.HieraQueryStage`].

    Returns:
        The arguments of the forward, and `is_learned`.
    """
    prepared = {name: value for name, value in inputs.items() if name not in PICTURE_ITEMS}
    side = PictureSide(model.config, model.codec, model.mllm.model.visual)
    latents, features = _targets(side, inputs, model.alignment is not None)
    prepared |= _shown(side, inputs)
    noise: list[list[torch.Tensor | None]] = [[None] * len(latents) for _ in model.config.scales]
    sigmas = torch.zeros(len(model.config.scales), draws, len(latents))
    keep = torch.ones(draws, len(latents), dtype=torch.bool)
    for row, (own, seed) in enumerate(zip(latents, inputs["noise_seeds"], strict=True)):
        if own is None:
            continue
        made, sigmas[:, :, row], dropped = draw_noise([one.shape for one in own], draws, seed, sigma_shift)
        keep[:, row] = dropped >= model.config.condition_dropout
        for scale, one in enumerate(made):
            noise[scale][row] = one.to(own[scale].device)
    return prepared | {
        "latents": latents,
        "vision_features": features,
        "noise_draws": draws,
        "noise": noise,
        "sigmas": [one.flatten() for one in sigmas],
        "keep": keep.flatten(),
    }


def draw_noise(
    shapes: Sequence[Sequence[int]], draws: int, seed: int, sigma_shift: float
) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """All that is random about the pictures of a row.

    Args:
        shapes: `(C, h, w)` at every scale.
        draws: times that each is noised.
        seed: of the row.
        sigma_shift: `s σ / (1 + (s - 1) σ)` of even ones.

    Returns:
        Noise `(draws, C, h, w)` for every scale; sigmas `(scales, draws)`, each even from 0 to 1 and those of a scale
        spread over it, so that few draws tell more; and even numbers `(draws,)` that decide about the condition.
    """
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand(len(shapes), 1, generator=generator)
    sigmas = (first + torch.arange(draws) / draws) % 1
    sigmas = sigma_shift * sigmas / (1 + (sigma_shift - 1) * sigmas)
    decisions = torch.rand(draws, generator=generator)
    return [torch.randn(draws, *shape, generator=generator) for shape in shapes], sigmas, decisions


def _targets(
    side: PictureSide, inputs: Mapping[str, Any], is_aligned: bool
) -> tuple[list[list[torch.Tensor] | None], list[torch.Tensor | None] | None]:
    """Latents of each row at every scale, float32, and what is seen in its picture; pictures of one size go together."""
    latents: list[Any] = [None] * len(inputs["is_learned"])
    features: list[torch.Tensor | None] = [None] * len(latents)
    by_size: dict[torch.Size, list[int]] = defaultdict(list)
    for row, (ahead, pixels) in enumerate(zip(inputs["target_latents"], inputs["target_pixels"], strict=True)):
        if ahead is not None:
            _check_ahead(side, ahead)
            latents[row], features[row] = [one.to(side.device) for one in ahead], inputs["vision_features"][row]
        elif pixels is not None:
            by_size[pixels.shape].append(row)
    for rows in by_size.values():
        pixels = torch.stack([inputs["target_pixels"][row] for row in rows])
        encoded = [side.latents(scale).float() for scale in side.at_scales(pixels)]
        seen = side.features(pixels).float() if is_aligned else None
        for place, row in enumerate(rows):
            latents[row] = [one[place] for one in encoded]
            features[row] = None if seen is None else seen[place]
    return latents, features if is_aligned else None


def _check_ahead(side: PictureSide, ahead: Sequence[torch.Tensor]) -> None:
    shapes = [tuple(one.shape) for one in ahead]
    if len(ahead) != len(side.config.scales) or any(shape[0] != side.codec.latent_channels for shape in shapes):
        raise ValueError(
            f"A picture was encoded as arrays of the shapes {shapes}, which are no latents of this model at its "
            f"{len(side.config.scales)} scales; encode the rows again (`wallaroo encode`)."
        )


def _shown(side: PictureSide, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What the language model sees of the pictures in the prompts, one after the other, and their grids."""
    seen = [
        ahead if patches is None else side.shown(patches[None])[0].float()
        for ahead, patches in zip(inputs["shown_features"], inputs["shown_patches"], strict=True)
        if ahead is not None or patches is not None
    ]
    if not seen:
        return {}
    merge = side.visual.config.spatial_merge_size
    grids = [[1, one.shape[0] * merge, one.shape[1] * merge] for one in seen]
    return {
        "image_features": torch.cat([one.flatten(0, 1).to(side.device) for one in seen]),
        "image_grid_thw": torch.tensor(grids, device=side.device),
    }
