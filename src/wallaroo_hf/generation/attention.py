"""Attention of a decoding step: few queries over many keys, with a mask that says how much of the cache counts."""

from typing import Any

import torch
from transformers import AttentionInterface

SDPA = "wallaroo_sdpa"  # what layers call where the model is loaded with "sdpa"
# Static caches are read in pieces of this many tokens: few widths for graphs that are recorded per width, few unused keys.
WIDTH_STEP = 128
# They are made for prompts of whole multiples of this, so that prompts of other lengths meet the graph of the first.
PROMPT_STEP = 256


def step_attention_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    r"""PyTorch's attention for the forwards of a decoding step, in transformers' calling convention.

    Layers reach it through [`sdpa_forward`]. It computes what transformers' `sdpa` computes, and differs in what it reads.
    Heads that share keys and values become more queries of one head, for any number of queries and compiled or not, where
    transformers repeats keys and values if a masked step is compiled or has two tokens. Of the cache it reads as much as
    the mask is wide, so a long static cache costs no more than what it holds.

    Args:
        module: the attention layer.
        query: `(B, heads, q, head_dim)`.
        key, value: `(B, kv_heads, S, head_dim)`.
        attention_mask: bool or additive, `(B, 1, q, L)` with `L <= S`: positions from `L` on are not looked at.
        dropout, scaling: as there.

    Returns:
        `(B, q, heads, head_dim)`, and None in place of the weights.
    """
    batch, num_heads, num_queries, head_dim = query.shape
    num_kv_heads, width = key.shape[1], attention_mask.shape[-1]
    groups = num_heads // num_kv_heads
    output = torch.nn.functional.scaled_dot_product_attention(
        query.reshape(batch, num_kv_heads, groups * num_queries, head_dim),
        key[:, :, :width],
        value[:, :, :width],
        attn_mask=attention_mask if num_queries == 1 else attention_mask.repeat(1, 1, groups, 1),
        dropout_p=dropout,
        scale=scaling,
    )
    return output.reshape(batch, num_heads, num_queries, value.shape[-1]).transpose(1, 2).contiguous(), None


def sdpa_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    step_attention: bool = False,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' `sdpa`; with `step_attention=True`, an argument of the model's forward, [`step_attention_forward`].

    Args:
        module: the attention layer.
        query: `(B, num_heads, T, head_dim)`.
        key, value: `(B, num_key_value_heads, S, head_dim)`, past and new.
        attention_mask: which keys are seen, `(B, 1, T, S)`; None = causal.
        step_attention: whether the forward is a step of drawing.
        kwargs: passed on.
    """
    if step_attention and attention_mask is not None:
        return step_attention_forward(module, query, key, value, attention_mask, **kwargs)
    return AttentionInterface()["sdpa"](module, query, key, value, attention_mask, **kwargs)


AttentionInterface.register(SDPA, sdpa_forward)


class LayerConfig:
    """What an attention layer sees of its configuration: all of it, but [`sdpa_forward`] where it says "sdpa".

    So each forward chooses its attention by an argument, and nothing that other threads read is changed meanwhile. The
    configuration itself says what the user chose, also after `set_attn_implementation`.

    Args:
        config: the language model's.
    """

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def _attn_implementation(self) -> str:
        chosen = self.config._attn_implementation
        return SDPA if chosen == "sdpa" else chosen

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "config":  # asked for before there is one, by copy and pickle
            raise AttributeError(name)
        return getattr(self.config, name)


def round_up(length: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-length // step) * step


def static_cache_length(prompt_length: int, num_new_tokens: int) -> int:
    """How long a static cache is made for a drawing.

    One more than widths reach, because a step that reads all of a cache compiles to another graph than one that reads
    part of it.
    """
    return round_up(round_up(prompt_length, PROMPT_STEP) + num_new_tokens, WIDTH_STEP) + 1


class StepMask:
    """The mask of the decoding steps, kept and extended instead of made anew, which would wait for the device.

    Args:
        prompts: `(rows, L)`, 1 where a prompt's token may be seen in later steps.
        num_new_tokens: how many tokens will follow at most; all are seen by those after them.
        max_length: of a static cache, whose unfilled end the mask hides; None for caches that hold nothing else.
    """

    def __init__(self, prompts: torch.Tensor, num_new_tokens: int, max_length: int | None) -> None:
        rows, self.length = prompts.shape
        self.max_length = max_length
        room = max_length or self.length + num_new_tokens
        self.seen = torch.zeros(rows, 1, 1, room, dtype=torch.bool, device=prompts.device)
        self.seen[:, 0, 0, : self.length] = prompts.bool()
        self.columns = torch.arange(room, device=prompts.device)

    def extend(self, count: int) -> torch.Tensor:
        """What the next `count` tokens see, themselves included: bool `(rows, 1, count, width)`.

        The width is the length so far, for a static cache rounded up to a multiple of `WIDTH_STEP`.
        """
        start, self.length = self.length, self.length + count
        self.seen[..., start : self.length] = True
        width = self.length
        if self.max_length is not None:  # never all of the cache if it can be helped: that would be another graph
            width = max(self.length, min(round_up(self.length, WIDTH_STEP), self.max_length - 1))
        mask = self.seen[..., :width]
        if count > 1:
            newest = self.columns[start : self.length]
            mask = mask & (self.columns[:width] <= newest[:, None])
        return mask
