"""The flow head: what the language model says about noisy latents becomes their velocity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.qwen3.modeling_qwen3 import (
    Qwen3Attention,
    Qwen3MLP,
    Qwen3RMSNorm,
    Qwen3RotaryEmbedding,
)

from .showo2_configuration import ShowO2Config, ShowO2FlowConfig

__all__ = [
    *("ShowO2FlowHead", "ShowO2FlowLayer", "TimeOfPositions", "pack_latents", "read_velocity", "unpack_latents"),
]


class TimeOfPositions(NamedTuple):
    """Which time modulates which position.

    Attributes:
        embeddings: `(K, width)`, of the times.
        positions: `(B, T)` int64, the time of each position, -1 for text; None: all positions of row b have time b.
    """

    embeddings: torch.Tensor
    positions: torch.Tensor | None

    def modulate(self, layer: nn.Linear, chunks: int, gates: Sequence[int] = ()) -> list[torch.Tensor]:
        """What a layer makes of the times, once for each, spread over their positions.

        Text is left as it is: shifts and scales are 0 there, gates 1.

        Args:
            layer: to `chunks` times the width.
            chunks: how many tensors come back, each `(B, T or 1, width)`.
            gates: which of them are gates.
        """
        made = layer(F.silu(self.embeddings)).chunk(chunks, dim=-1)
        if self.positions is None:
            return [one[:, None] for one in made]
        rest = [one.new_full((1, one.shape[1]), float(number in gates)) for number, one in enumerate(made)]
        return [
            torch.cat([one, neutral])[self.positions] for one, neutral in zip(made, rest, strict=True)
        ]  # -1: the last


class ShowO2FlowLayer(GradientCheckpointingLayer):
    """A layer of the flow head: Qwen3's attention and MLP, modulated by time (adaLN-Zero).

    Args:
        config: the flow head's.
        layer_idx: its place, also in the cache.
    """

    def __init__(self, config: ShowO2FlowConfig, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = Qwen3Attention(config, layer_idx)
        # Qwen3 has one epsilon for all of its norms
        self.self_attn.q_norm.variance_epsilon = self.self_attn.k_norm.variance_epsilon = config.qk_norm_eps
        self.mlp = Qwen3MLP(config)
        self.input_layernorm = Qwen3RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = Qwen3RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.modulation = nn.Linear(config.hidden_size, 6 * config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        times: TimeOfPositions,
        attention_mask: Any = None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """`(B, T, width)` to the same.

        Args:
            hidden_states: `(B, T, width)`.
            times: modulate the positions of images.
            attention_mask: as transformers' masks are.
            position_embeddings: cosines and sines.
            cache: of the flow head's own layers.
            kwargs: for the attention function.
        """
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = times.modulate(self.modulation, 6, gates=(2, 5))
        residual = hidden_states
        hidden_states = self.input_layernorm(hidden_states) * (1 + scale) + shift
        attended, _ = self.self_attn(
            hidden_states,
            position_embeddings=position_embeddings,
            attention_mask=attention_mask,
            cache=cache,
            **kwargs,
        )
        hidden_states = residual + gate * attended
        residual = hidden_states
        hidden_states = self.post_attention_layernorm(hidden_states) * (1 + mlp_scale) + mlp_shift
        return residual + mlp_gate * self.mlp(hidden_states)


class _Projection(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_features, out_features)
        self.linear_2 = nn.Linear(out_features, out_features)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.linear_2(F.gelu(self.linear_1(hidden_states)))


class ShowO2FlowHead(PreTrainedModel):
    """Layers over the whole sequence, text included, then 64 numbers per image token (paper section 3.2).

    A `PreTrainedModel`, so that the attention of its layers is chosen with that of the others.

    Args:
        config: the flow head's.
        in_features: the language model's width.
        out_features: numbers per image token.
    """

    config_class = ShowO2FlowConfig
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["ShowO2FlowLayer"]

    def __init__(self, config: ShowO2FlowConfig, in_features: int, out_features: int) -> None:
        super().__init__(config)
        # where both are equally wide, there is no projection in the released code either
        self.input_projection = None
        if in_features != config.hidden_size:
            self.input_projection = _Projection(in_features, config.hidden_size)
        self.layers = nn.ModuleList([ShowO2FlowLayer(config, index) for index in range(config.num_hidden_layers)])
        self.norm = Qwen3RMSNorm(config.hidden_size, eps=config.final_norm_eps)
        self.modulation = nn.Linear(config.hidden_size, 2 * config.hidden_size)
        self.output = nn.Linear(config.hidden_size, out_features)
        self.rotary_emb = Qwen3RotaryEmbedding(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """As transformers does; modulation and output begin at zero, as in adaLN-Zero."""
        super()._init_weights(module)
        zero = [module.modulation] if isinstance(module, (ShowO2FlowHead, ShowO2FlowLayer)) else []
        for layer in [*zero, *([module.output] if isinstance(module, ShowO2FlowHead) else [])]:
            init.zeros_(layer.weight)
            init.zeros_(layer.bias)

    def forward(
        self,
        hidden_states: torch.Tensor,
        times: TimeOfPositions,
        attention_mask: Any,
        position_ids: torch.Tensor,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Velocities `(B, T, out_features)` in the layout of [`unpack_latents`]; those of text mean nothing.

        Args:
            hidden_states: the language model's last, `(B, T, in_features)`.
            times: modulate the positions of images.
            attention_mask: the language model's.
            position_ids: `(B, T)`, the language model's.
            cache: keys and values of the positions before, of these layers.
            kwargs: for the attention function.
        """
        if self.input_projection is not None:
            hidden_states = self.input_projection(hidden_states)
        position_embeddings = self.rotary_emb(hidden_states, position_ids)
        for layer in self.layers:
            hidden_states = layer(
                hidden_states,
                times=times,
                attention_mask=attention_mask,
                position_embeddings=position_embeddings,
                cache=cache,
                **kwargs,
            )
        shift, scale = times.modulate(self.modulation, 2)
        return self.output(self.norm(hidden_states) * (1 + scale) + shift)


def pack_latents(latents: torch.Tensor, per_token: int) -> torch.Tensor:
    """Latents in the layout of the flow head's output, which is not that of its input: tokens `(N, per_token · C)`.

    As released: four neighbours in raster order are one token's, channel fastest; a token therefore speaks of other places
    than its own 2x2 patch.

    Args:
        latents: `(C, h, w)` or `(C, T, h, w)`.
        per_token: places per token, `patch_size²`.
    """
    channels = latents.shape[0]
    return latents.flatten(1).transpose(0, 1).reshape(-1, per_token * channels)


def unpack_latents(tokens: torch.Tensor, size: Sequence[int], channels: int) -> torch.Tensor:
    """The inverse of [`pack_latents`].

    Args:
        tokens: `(N, per_token · channels)`.
        size: `(h, w)` or `(T, h, w)`.
        channels: of the latents.
    """
    return tokens.reshape(-1, channels).transpose(0, 1).reshape(channels, *size)


def read_velocity(tokens: torch.Tensor, size: Sequence[int], config: ShowO2Config) -> torch.Tensor:
    """What the flow head says of an image's tokens as the velocity of its latents.

    Args:
        tokens: `(N, patch_size² · C)`, without that of the time.
        size: `(h, w)` or `(T, h, w)`.
        config: the model's, which names the layout.

    Returns:
        `(C, h, w)` or `(C, T, h, w)`.
    """
    channels, patch = config.latent_channels, config.patch_size
    if config.output_layout == "raster":
        return unpack_latents(tokens, size, channels)
    *frames, height, width = size
    grid = tokens.reshape(-1, height // patch, width // patch, patch * patch * channels)
    pictures = F.pixel_shuffle(grid.movedim(-1, 1), patch)  # (T, C, h, w)
    return pictures.transpose(0, 1) if frames else pictures[0]
