"""A dynamic cache with room for what is going to be drawn: its keys and values are written in place, not copied."""

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):
    """One layer. Grows like transformers' own if its room turns out too small.

    Args:
        room: number of tokens to make room for.
    """

    keys: Any
    values: Any

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self._key_buffer = self._value_buffer = torch.empty(0)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes new states `(B, heads, k, head_dim)`; returns all, as views of the room."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self.room:
            return super().update(key_states, value_states, *args, **kwargs)
        if start == 0:
            self._key_buffer = key_states.new_empty(*key_states.shape[:2], self.room, key_states.shape[-1])
            self._value_buffer = value_states.new_empty(*value_states.shape[:2], self.room, value_states.shape[-1])
        elif self.keys.data_ptr() != self._key_buffer.data_ptr():
            # rows were selected, repeated or replaced since: the room is that of other tensors
            return super().update(key_states, value_states, *args, **kwargs)
        self._key_buffer[:, :, start:end] = key_states
        self._value_buffer[:, :, start:end] = value_states
        self.keys, self.values = self._key_buffer[:, :, :end], self._value_buffer[:, :, :end]
        return self.keys, self.values

    def buffers(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Keys and values with all the room, or None if they are no longer in it."""
        if self.keys.data_ptr() != self._key_buffer.data_ptr():
            return None
        return self._key_buffer, self._value_buffer


def roomy_cache(text_config: Any, room: int) -> DynamicCache:
    """An empty dynamic cache with room for `room` tokens in each layer that keeps all of them."""
    cache = DynamicCache(config=text_config)
    cache.layers = [RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
