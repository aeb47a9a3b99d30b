"""`HieraQueryConnector`: states of queries become conditions of the diffusion transformer."""

from __future__ import annotations

import torch
from torch import nn
from transformers import Qwen2Model

from .hieraquery_configuration import HieraQueryConfig

__all__ = ["HieraQueryConnector"]


def _perceptron(inner: int, outer: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inner, outer), nn.GELU(), nn.Linear(outer, outer))


class HieraQueryConnector(nn.Module):
    """A transformer that looks both ways, one for all scales, which tells them apart by a vector of their own.

    Args:
        config: of the model.
        condition_size: width of conditions.
    """

    def __init__(self, config: HieraQueryConfig, condition_size: int) -> None:
        super().__init__()
        inner = config.connector_config.hidden_size
        self.proj_in = _perceptron(config.mllm_config.text_config.hidden_size, inner)
        self.transformer = Qwen2Model(config.connector_config)
        self.transformer.embed_tokens = None  # nothing in it is a word
        self.proj_out = _perceptron(inner, condition_size)
        self.norm = nn.RMSNorm(condition_size, eps=1e-6)
        self.scale_vectors = nn.Parameter(torch.zeros(len(config.scales), condition_size))

    def forward(self, states: torch.Tensor, scale: int) -> torch.Tensor:
        """Conditions `(B, N, condition_size)` of one scale.

        Args:
            states: `(B, N, hidden_size)` of the language model.
            scale: its number.
        """
        hidden_states = self.proj_in(states.to(self.scale_vectors.dtype))
        hidden_states = self.transformer(inputs_embeds=hidden_states, use_cache=False).last_hidden_state
        projected = self.proj_out(hidden_states).to(self.scale_vectors.dtype)  # autocast leaves it rounded
        condition: torch.Tensor = self.norm(projected) + self.scale_vectors[scale]
        return condition
