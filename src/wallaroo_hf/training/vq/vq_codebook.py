"""Keeping a codebook alive and tidy: k-means to begin with, another chance for codes that nobody uses, none for doubles."""

from __future__ import annotations

import torch
from torch.nn import functional as F

__all__ = ["crowded_codes", "restart_latents", "spherical_kmeans"]

_ROWS_AT_ONCE = 8192


def spherical_kmeans(
    latents: torch.Tensor, num_codes: int, iterations: int, generator: torch.Generator
) -> torch.Tensor:
    """Clusters unit vectors by cosine similarity, from k-means++ seeds.

    Args:
        latents: `(N, embed_dim)` unit vectors, on the CPU.
        num_codes: how many centres.
        iterations: rounds of Lloyd's algorithm after the seeding.

    Returns:
        `(num_codes, embed_dim)` unit vectors. Where there are fewer distinct latents than codes,
        the codes left over are latents that occur a second time.
    """
    picks = torch.rand(num_codes, generator=generator, dtype=torch.float64)
    centres = latents.new_empty(num_codes, latents.shape[1])
    distance = torch.ones(len(latents), dtype=torch.float64)
    for index in range(num_codes):
        cumulative = distance.cumsum(0)
        chosen = torch.searchsorted(cumulative, picks[index] * cumulative[-1]).clamp_max(len(latents) - 1)
        centres[index] = latents[chosen]
        distance = torch.minimum(distance, (1 - latents @ centres[index]).clamp_min(1e-9).double())
    for _ in range(iterations):
        nearest = torch.cat([(rows @ centres.T).argmax(1) for rows in latents.split(_ROWS_AT_ONCE)])
        sums = torch.zeros_like(centres).index_add_(0, nearest, latents)
        empty = torch.bincount(nearest, minlength=num_codes) == 0
        centres = torch.where(empty[:, None], centres, F.normalize(sums, dim=-1))
    return centres


def restart_latents(
    latents: torch.Tensor, vectors: torch.Tensor, num_wanted: int, min_distance: float, generator: torch.Generator
) -> torch.Tensor:
    """Where unused codes are needed most: latents chosen by chance and their squared distance to the code that they have.

    Args:
        latents: `(N, embed_dim)` unit vectors.
        vectors: `(N, embed_dim)`, of the code that is nearest to each.
        num_wanted: how many are wanted.
        min_distance: latents that are no farther than this from their code are well served.
        generator: on the CPU, whatever device the latents are on.

    Returns:
        `(at most num_wanted, embed_dim)`: distinct ones of the latents, none of them well served.
    """
    error = (latents - vectors).square().sum(-1).cpu()
    error[error <= min_distance**2] = 0
    num_wanted = min(num_wanted, int((error > 0).sum()))
    if num_wanted == 0:
        return latents[:0]
    return latents[torch.multinomial(error, num_wanted, generator=generator).to(latents.device)]


def crowded_codes(vectors: torch.Tensor, uses: torch.Tensor, min_distance: float) -> torch.Tensor:
    """Codes that stand nearer than `min_distance` to one that is used more (and stays).

    Args:
        vectors: `(N, embed_dim)`, the codes' unit vectors; zero vectors crowd nobody.
        uses: `(N,)` int64, how often each was used.

    Returns:
        `(N,)` bool.
    """
    crowded = torch.zeros(len(vectors), dtype=torch.bool, device=vectors.device)
    rank = torch.empty_like(uses)
    order = uses.argsort(descending=True, stable=True)
    rank[order] = torch.arange(len(uses), device=uses.device)
    for code in order.tolist():
        if not crowded[code]:
            crowded |= (vectors @ vectors[code] > 1 - min_distance**2 / 2) & (rank > rank[code])
    return crowded
