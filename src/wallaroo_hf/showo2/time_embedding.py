"""How noisy an image is, as a vector: sinusoids and a small MLP."""

import math

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["ShowO2TimeEmbedding"]

_BASE = 10000.0


class ShowO2TimeEmbedding(nn.Module):
    """Times in [0, 1] (0 = noise, 1 = clean) to vectors of the flow head's width. Released code: cosines first, times not
    multiplied by 1,000.

    Args:
        frequency_size: width of the sinusoids.
        hidden_size: width of the result.
    """

    def __init__(self, frequency_size: int, hidden_size: int) -> None:
        super().__init__()
        self.frequency_size = frequency_size
        self.linear_1 = nn.Linear(frequency_size, hidden_size)
        self.linear_2 = nn.Linear(hidden_size, hidden_size)

    def forward(self, timesteps: torch.Tensor) -> torch.Tensor:
        """`(N,)` to `(N, hidden_size)`; the sinusoids are computed in float32."""
        half = self.frequency_size // 2
        frequencies = torch.exp(-math.log(_BASE) * torch.arange(half, device=timesteps.device).float() / half)
        angles = timesteps.float()[:, None] * frequencies
        sinusoids = torch.cat([angles.cos(), angles.sin()], dim=-1).to(self.linear_1.weight.dtype)
        return self.linear_2(F.silu(self.linear_1(sinusoids)))
