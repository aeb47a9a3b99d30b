"""A cache whose rows grow at their own pace, for windows: each row's keys and values go to slots of its own."""

from typing import Any

import torch
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, StaticLayer

from .attention import WIDTH_STEP, round_up
from .cache import RoomyLayer


class RaggedLayer(CacheLayerMixin):
    """One layer: new states are written where `slots` says, over what a wrong guess left there.

    Args:
        keys, values: all slots, `(rows, heads, room, head_dim)`.
        slots: `(rows, window)` int64, shared by all layers, where each row's next states go.
    """

    is_compileable = True
    keys: Any
    values: Any

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values, self.slots = keys, values, slots
        self.rows = torch.arange(len(keys), device=keys.device)[:, None]
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing is left to do: the layer is made of tensors that are there."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes new states `(rows, heads, window, head_dim)`; returns all slots, of which a mask hides what is stale."""
        slots = self.slots.to(self.keys.device)
        self.keys.transpose(1, 2)[self.rows, slots] = key_states.transpose(1, 2)
        self.values.transpose(1, 2)[self.rows, slots] = value_states.transpose(1, 2)
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """All slots, from the first."""
        return self.get_max_length(), 0

    def get_seq_length(self) -> int:
        """All slots: rows have lengths of their own."""
        return self.get_max_length()

    def get_max_length(self) -> int:
        """Number of slots."""
        return self.keys.shape[2]


class RaggedRows:
    """Lets the rows of a filled cache grow at their own pace, until they are given back.

    Args:
        cache: transformers' cache, dynamic or static, filled with the prompts.
        prompts: `(rows, L)`, 1 where a prompt's token may be seen.
        num_new_tokens: how many tokens will follow.
        window: how many tokens of each row a forward takes.

    Raises:
        ValueError: if the cache is of another kind, or a static one is too short.
    """

    def __init__(self, cache: Any, prompts: torch.Tensor, num_new_tokens: int, window: int) -> None:
        if cache.offloading:
            raise ValueError(
                "`window` cannot be used with an offloaded cache; use another one, or leave out `window`."
            )
        self.cache, self.layers = cache, list(cache.layers)
        self.prompt_length = prompts.shape[1]
        # Windows reach beyond the last token; what they would write there goes to the last slot, which nobody needs:
        # it belongs to the image's end.
        self.room = self.prompt_length + num_new_tokens
        rooms = [_room(layer, self.prompt_length, self.room) for layer in self.layers]
        self.static = any(isinstance(layer, StaticLayer) for layer in self.layers)
        if self.static:
            self.room = min(layer.max_cache_len for layer in self.layers)
        self.slots = torch.zeros(len(prompts), window, dtype=torch.long, device=prompts.device)
        self.steps = torch.arange(window, device=prompts.device)
        self.columns = torch.arange(self.room, device=prompts.device)
        beyond = (0, self.room - self.prompt_length)
        self.seen = torch.nn.functional.pad(prompts.bool(), beyond, value=True)[:, None, None]  # (rows, 1, 1, room)
        cache.layers = [RaggedLayer(keys, values, self.slots) for keys, values in rooms]

    def aim(self, starts: torch.Tensor, furthest: int, whole: bool) -> torch.Tensor:
        """Says where the next window goes, and what it may see.

        Args:
            starts: `(rows,)` int64, how many new tokens each row has in the cache that are right.
            furthest: the largest of them, known to the host.
            whole: whether attention wants a mask over all slots; else it is as wide as needed, in a static cache rounded
                up as in [`StepMask`].

        Returns:
            bool `(rows, 1, window, width)`.
        """
        slots = self.prompt_length + starts[:, None] + self.steps  # (rows, window)
        self.slots.copy_(slots.clamp(max=self.room - 1))
        width = min(self.prompt_length + furthest + len(self.steps), self.room)
        if whole:
            width = self.room
        elif self.static:
            width = max(width, min(round_up(width, WIDTH_STEP), self.room - 1))
        return self.seen[..., :width] & (self.columns[:width] <= slots[:, None, :, None])

    def give_back(self, length: int) -> None:
        """Makes the cache what it was, holding the first `length` tokens of every row."""
        for layer, ragged in zip(self.layers, self.cache.layers, strict=True):
            if isinstance(layer, StaticLayer):
                layer.cumulative_length.fill_(length)
            else:
                layer.keys, layer.values = ragged.keys[:, :, :length], ragged.values[:, :, :length]
        self.cache.layers = self.layers


def _room(layer: Any, length: int, room: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of a layer with `room` slots, those from `length` on free of NaNs."""
    if type(layer) is StaticLayer:
        if layer.max_cache_len < room:
            raise ValueError(
                f"The static cache has {layer.max_cache_len} slots, but prompt and image need {room} when several codes "
                "are decided at once; make it longer, or leave out `window`."
            )
        return layer.keys, layer.values
    if type(layer) not in (DynamicLayer, RoomyLayer):
        raise ValueError(
            f"`window` cannot be used with cache layers of type {type(layer).__name__}, whose rows cannot grow at their "
            "own pace; use a dynamic or static cache, or leave out `window`."
        )
    buffers = layer.buffers() if isinstance(layer, RoomyLayer) else None
    if buffers is None or buffers[0].shape[2] < room:
        buffers = tuple(torch.nn.functional.pad(kept, (0, 0, 0, room - length)) for kept in (layer.keys, layer.values))
    for buffer in buffers:
        buffer[:, :, length:] = 0
    return buffers
