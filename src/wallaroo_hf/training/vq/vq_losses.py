"""What the image tokenizer is trained to make small."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ...modeling.vq import WallarooVQModel

__all__ = ["VQPass", "code_entropy", "locality_loss", "shuffle_tiles", "vq_pass"]

_ENTROPY_TEMPERATURE = 0.01  # LlamaGen's


@dataclass
class VQPass:
    """One trip of a batch through the tokenizer.

    Attributes:
        reconstruction: `(B, 3, H, W)` float32, around [-1, 1].
        latents: `(B, rows, cols, embed_dim)` float32, L2-normalised, not quantised.
        codes: `(B, rows, cols)` int64, the nearest ones; they say little before the codebook was initialised.
        vectors: `(B, rows, cols, embed_dim)` float32, the codes' unit vectors.
    """

    reconstruction: torch.Tensor
    latents: torch.Tensor
    codes: torch.Tensor
    vectors: torch.Tensor


def vq_pass(model: WallarooVQModel, pixel_values: torch.Tensor, quantise: bool = True) -> VQPass:
    """Encodes and decodes a batch with gradients: straight through the quantizer, as in LlamaGen.

    Args:
        pixel_values: `(B, 3, H, W)` in [-1, 1]; H and W multiples of `config.image_token_size`.
        quantise: False decodes the normalised latents themselves, for the warm-up before there is a codebook.
    """
    encoded = model.encode(pixel_values)
    codes, latents = encoded.to_tuple()
    vectors = model.quantize.lookup(codes)
    passed = latents + (vectors - latents).detach() if quantise else latents
    reconstruction = model.decoder(model.post_quant_conv(passed.permute(0, 3, 1, 2)))
    return VQPass(reconstruction, latents, codes, vectors)


def code_entropy(latents: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """LlamaGen's entropy term: small when each latent is sure of its code and the batch uses all codes alike.

    Args:
        latents: `(..., embed_dim)` unit vectors.
        codebook: `(codes, embed_dim)` unit vectors.

    Returns:
        Mean entropy of the latents' soft assignments, less the entropy of their mean; in nats.
    """
    log_probs = F.log_softmax(2 * latents.flatten(0, -2) @ codebook.T / _ENTROPY_TEMPERATURE, dim=-1)
    probs = log_probs.exp()
    mean = probs.mean(dim=0)
    return -(probs * log_probs).sum(-1).mean() + (mean * mean.clamp_min(1e-9).log()).sum()


def shuffle_tiles(
    pixel_values: torch.Tensor, tile_size: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Puts square tiles of each image into another order, each image into its own.

    Args:
        pixel_values: `(B, C, H, W)`, H and W multiples of `tile_size`.
        tile_size: edge of a tile in pixels.

    Returns:
        The shuffled images, and `(B, tiles)` int64: tile i of the result is tile `order[b, i]` of the image.

    Raises:
        ValueError: if the sides of the images are no multiples of `tile_size`.
    """
    height, width = pixel_values.shape[-2:]
    if height % tile_size or width % tile_size:
        raise ValueError(
            f"Images of {height}x{width} (height x width) cannot be cut into tiles of {tile_size} pixels; give sides that "
            "are multiples of it, or another `locality_tile`."
        )
    count = (height // tile_size) * (width // tile_size)
    order = torch.rand(pixel_values.shape[0], count, generator=generator).argsort(dim=1).to(pixel_values.device)
    return _reorder(pixel_values, order, tile_size), order


def locality_loss(latents: torch.Tensor, shuffled: torch.Tensor, order: torch.Tensor, tile_size: int) -> torch.Tensor:
    """Mean squared distance between the latents of a tile among its own neighbours and among others.

    Args:
        latents: `(B, rows, cols, embed_dim)` of the images.
        shuffled: the same of the images that `shuffle_tiles` made of them.
        order: what `shuffle_tiles` returned beside them.
        tile_size: edge of a tile in codes.
    """
    return F.mse_loss(_reorder(latents.permute(0, 3, 1, 2), order, tile_size), shuffled.permute(0, 3, 1, 2))


def _reorder(grid: torch.Tensor, order: torch.Tensor, tile_size: int) -> torch.Tensor:
    """Takes the tiles of `(B, C, H, W)` in another order."""
    batch, channels, height, width = grid.shape
    tiles = grid.unflatten(3, (-1, tile_size)).unflatten(2, (-1, tile_size))  # (B, C, rows, size, cols, size)
    rows, cols = tiles.shape[2], tiles.shape[4]
    tiles = tiles.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # (B, rows * cols, C, size, size)
    tiles = tiles[torch.arange(batch, device=grid.device)[:, None], order].unflatten(1, (rows, cols))
    return tiles.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, height, width)
