"""Prompts that are read once: what a drawing sees of them depends neither on its noise nor on its time."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

from ..block_layout import BlockLayout
from ..flow_head import TimeOfPositions

__all__ = ["FrozenLayer", "PromptCache", "join_prompts", "read_flow", "read_prompt"]


class FrozenLayer(DynamicLayer):
    """Keys and values that stay: new ones are seen once and not kept.

    Args:
        keys, values: `(B, heads, T, head_dim)`.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The kept ones and the new ones, `(B, heads, T + new, head_dim)`."""
        return torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)


@dataclass
class PromptCache:
    """Keys and values of prompts in the language model and in the flow head.

    A text position is causal in both and is not modulated by time, so these are the same in every step of a drawing.

    Attributes:
        language, flow: caches with one layer per layer.
        attention_mask: `(B, T)`, 0 = padding.
        hidden_states: `(B, 1, hidden_size)`, the language model's last.
    """

    language: Cache
    flow: Cache
    attention_mask: torch.Tensor
    hidden_states: torch.Tensor

    def select(self, rows: Sequence[int]) -> PromptCache:
        """Some rows, in another order or several times, that are not kept on with; columns that none of them needs go.

        Args:
            rows: their numbers.
        """
        index = torch.tensor(list(rows), device=self.attention_mask.device)
        mask = self.attention_mask[index]
        first = int(mask.any(0).int().argmax())
        language, flow = (_frozen(cache, index, first) for cache in (self.language, self.flow))
        return PromptCache(language, flow, mask[:, first:], self.hidden_states[index.to(self.hidden_states.device)])

    def copy(self) -> PromptCache:
        """One that can be read on from while this one stays."""
        return copy.deepcopy(self)


@torch.no_grad()
def read_prompt(
    model: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    image_latents: Sequence[torch.Tensor] | None = None,
    timesteps: Sequence[float] | None = None,
    before: PromptCache | None = None,
) -> PromptCache:
    """Reads prompts with language model and flow head.

    Args:
        model: a [`ShowO2ForConditionalGeneration`].
        input_ids: `(B, T)`, left-padded; images in them are as in its forward.
        attention_mask: `(B, T)`, 0 = padding; None = there is none.
        image_latents, timesteps: of the images, clean unless said otherwise.
        before: what was read already; it is read on from in place.

    Returns:
        What was before, and these.

    Raises:
        ValueError: see [`ShowO2Model.forward`].
    """
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    if before is None:
        language, flow = DynamicCache(), DynamicCache()
    else:
        language, flow = before.language, before.flow
        attention_mask = torch.cat([before.attention_mask.to(attention_mask), attention_mask], dim=1)
    outputs = model.model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        cache=language,
        image_latents=image_latents,
        timesteps=timesteps,
        use_cache=True,
    )
    hidden_states, blocks = outputs.last_hidden_state, outputs.blocks
    model.flow_head(hidden_states, _times(model, outputs, blocks), outputs.flow_mask, outputs.position_ids, cache=flow)
    return PromptCache(language, flow, attention_mask, hidden_states[:, -1:])


@torch.no_grad()
def read_flow(model: Any, hidden_states: torch.Tensor, input_ids: torch.Tensor, flow: Cache) -> None:
    """Reads with the flow head what the language model has read before, of one row without padding.

    Args:
        model: a [`ShowO2ForConditionalGeneration`].
        hidden_states: `(1, T, hidden_size)`, the language model's last.
        input_ids: `(1, T)`, what they are of; images in them are clean.
        flow: what the flow head has read; it is read on from in place.
    """
    past, backbone = flow.get_seq_length(), model.model
    blocks = backbone.find_images(input_ids)
    positions = torch.arange(past, past + input_ids.shape[1], device=hidden_states.device)[None]
    mask = backbone.omni_masks(hidden_states, None, positions, flow, blocks)[1]
    times = TimeOfPositions(backbone.embed_times([1.0] * len(blocks.rows)), blocks.numbers.to(hidden_states.device))
    model.flow_head(hidden_states, times, mask, positions, cache=flow)


def join_prompts(prompts: Sequence[PromptCache]) -> PromptCache:
    """Several prompts as one batch, left-padded, that is not kept on with."""
    widest = max(one.attention_mask.shape[1] for one in prompts)
    missing = [widest - one.attention_mask.shape[1] for one in prompts]
    language, flow = (_side_by_side([getattr(one, name) for one in prompts], missing) for name in ("language", "flow"))
    masks = [F.pad(one.attention_mask, (more, 0)) for one, more in zip(prompts, missing, strict=True)]
    return PromptCache(language, flow, torch.cat(masks), torch.cat([one.hidden_states for one in prompts]))


def _side_by_side(caches: Sequence[Cache], missing: Sequence[int]) -> Cache:
    """Caches as rows of one, with so many empty columns before each."""
    layers = []
    for each in zip(*(cache.layers for cache in caches), strict=True):
        keys = [F.pad(layer.keys, (0, 0, more, 0)) for layer, more in zip(each, missing, strict=True)]
        values = [F.pad(layer.values, (0, 0, more, 0)) for layer, more in zip(each, missing, strict=True)]
        layers.append(FrozenLayer(torch.cat(keys), torch.cat(values)))
    return Cache(layers=layers)


def _times(model: Any, outputs: Any, blocks: BlockLayout) -> TimeOfPositions:
    times = outputs.time_embeddings
    if times is None:
        times = outputs.last_hidden_state.new_zeros(0, model.config.flow_config.hidden_size)
    return TimeOfPositions(times, blocks.numbers.to(outputs.last_hidden_state.device))


def _frozen(cache: Cache, rows: torch.Tensor, first: int) -> Cache:
    """Some rows of a cache, from a column on, as they stay."""
    parts = [(layer.keys, layer.values) for layer in cache.layers]
    kept = [[part[rows.to(part.device), :, first:] for part in pair] for pair in parts]
    return Cache(layers=[FrozenLayer(*pair) for pair in kept])
