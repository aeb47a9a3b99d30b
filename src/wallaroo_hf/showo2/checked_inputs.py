"""What the model takes, looked at before it is used: each fault is one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .block_layout import BlockLayout
from .sequences import REDUCED_GRID
from .showo2_configuration import ShowO2Config

__all__ = ["check_images", "check_latents", "check_rows", "read_times"]


def check_rows(
    input_ids: torch.Tensor | None,
    inputs_embeds: torch.Tensor | None,
    attention_mask: Any,
    position_ids: torch.Tensor | None,
    past: int,
) -> None:
    """Makes sure that ids, embeddings, mask and positions speak of the same rows.

    Args:
        input_ids, inputs_embeds, attention_mask, position_ids: see [`ShowO2Model.forward`].
        past: positions in the cache.

    Raises:
        ValueError: if not.
    """
    if input_ids is None and inputs_embeds is None:
        raise ValueError("Neither `input_ids` nor `inputs_embeds` were given; give one of them.")
    if input_ids is not None and (input_ids.dim() != 2 or input_ids.is_floating_point()):
        raise ValueError(
            f"`input_ids` have the type {input_ids.dtype} and the shape {tuple(input_ids.shape)}, but must be whole "
            "numbers (B, T)."
        )
    if inputs_embeds is not None and inputs_embeds.dim() != 3:
        raise ValueError(
            f"`inputs_embeds` are of shape {tuple(inputs_embeds.shape)}, but must be (B, T, hidden_size)."
        )
    given: Any = input_ids if input_ids is not None else inputs_embeds
    rows, length = given.shape[:2]
    if inputs_embeds is not None and tuple(inputs_embeds.shape[:2]) != (rows, length):
        raise ValueError(
            f"`input_ids` are of shape {(rows, length)}, but `inputs_embeds` of {tuple(inputs_embeds.shape)}; give one "
            "embedding per id."
        )
    is_flat = isinstance(attention_mask, torch.Tensor) and attention_mask.dim() <= 2
    if is_flat and tuple(attention_mask.shape) != (rows, past + length):
        raise ValueError(
            f"`attention_mask` is of shape {tuple(attention_mask.shape)}, but must be {(rows, past + length)}: one for "
            "each position, those in the cache included."
        )
    if position_ids is not None and tuple(position_ids.shape) not in ((rows, length), (1, length)):
        raise ValueError(
            f"`position_ids` are of shape {tuple(position_ids.shape)}, but must be {(rows, length)}, one per position."
        )


def read_times(timesteps: Any, count: int) -> torch.Tensor:
    """Times of images, float32 `(count,)`.

    Args:
        timesteps: numbers from 0 (noise) to 1 (clean), one per image; None = all are clean.
        count: of images.

    Raises:
        ValueError: for anything else.
    """
    if timesteps is None:
        return torch.ones(count)
    try:
        times = torch.as_tensor(timesteps, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"`timesteps` are no numbers ({error}); give one from 0 to 1 per image, row by row."
        ) from error
    if times.dim() != 1 or len(times) != count:
        had = f"{len(times)} `timesteps`" if times.dim() == 1 else f"`timesteps` of shape {tuple(times.shape)}"
        raise ValueError(f"There are {count} images, but {had}; give a list of one per image, row by row.")
    if not bool(((times >= 0) & (times <= 1)).all()):
        raise ValueError(
            f"`timesteps` are from {float(times.min()):g} to {float(times.max()):g}, but must be from 0 (noise) to 1 "
            "(clean)."
        )
    return times


def check_images(blocks: BlockLayout, image_latents: Sequence[torch.Tensor], config: ShowO2Config) -> None:
    """Makes sure that latents are as many and as large as the runs of image ids.

    Args:
        blocks: the runs.
        image_latents: see [`ShowO2Model.forward`].
        config: the model's.

    Raises:
        ValueError: if not.
    """
    if len(image_latents) != len(blocks.rows):
        raise ValueError(
            f"There are {len(blocks.rows)} images in `input_ids`, but {len(image_latents)} `image_latents`; give one per "
            "image, row by row."
        )
    for number, (latents, length) in enumerate(zip(image_latents, blocks.lengths, strict=True)):
        check_latents(latents, config)
        tokens = config.image_tokens(latents.shape[1:])
        reduced = latents.shape[1] * REDUCED_GRID[0] * REDUCED_GRID[1] if latents.dim() == 4 else tokens
        if length - 1 not in (tokens, reduced):
            also = f" (or {reduced} as reduced video)" if reduced != tokens else ""
            raise ValueError(
                f"Image {number} has {length - 1} tokens in `input_ids`, but latents of size "
                f"{tuple(latents.shape)} are {tokens} tokens{also}; make them agree."
            )


def check_latents(latents: Any, config: ShowO2Config) -> None:
    """Makes sure that these are the latents of one image or video, in whole tokens.

    Args:
        latents: of one.
        config: the model's.

    Raises:
        ValueError: if not.
    """
    channels, patch = config.latent_channels, config.patch_size
    if not isinstance(latents, torch.Tensor):
        raise ValueError(
            f"Latents of an image are a {type(latents).__name__}, but must be a tensor ({channels}, h, w); give a flat "
            "list with one per image, row by row."
        )
    edges = latents.shape[-2:]
    is_whole = latents.dim() in (3, 4) and all(edge >= patch and edge % patch == 0 for edge in edges)
    if not is_whole or latents.shape[0] != channels or not latents.numel():
        raise ValueError(
            f"Latents have the size {tuple(latents.shape)}, but must be ({channels}, h, w) or "
            f"({channels}, frames, h, w), with edges that are multiples of {patch}."
        )
