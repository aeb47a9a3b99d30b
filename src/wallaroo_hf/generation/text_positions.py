"""Where a text goes on behind images: kept with its cache, so that sequences and threads do not meet in the model.

Stock Qwen2.5-VL keeps the offset between tokens and positions (`rope_deltas`) on the model, where the next prompt replaces
it: two caches that are continued in turn, or two threads, would get each other's.
"""

from typing import Any

import torch
from transformers import Cache, GenerationMixin

_SEEN = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")  # what positions of pictures and videos are made of


def rope_deltas(cache: Cache | None) -> torch.Tensor | None:
    """What positions are ahead of the number of tokens, `(B, 1)` int64, in the sequences of a cache; None if not known."""
    return getattr(cache, "rope_deltas", None)


def remember_rope_deltas(cache: Cache, deltas: torch.Tensor) -> None:
    """Keeps it with the cache, for [`rope_deltas`]."""
    cache.rope_deltas = deltas


def positions_behind(
    cache: Cache, deltas: torch.Tensor, attention_mask: torch.Tensor | None, length: int
) -> torch.Tensor:
    """Positions `(3, B, length)` of `length` text tokens behind what is in a cache.

    Args:
        cache: of `B` rows.
        deltas: as [`rope_deltas`], of `B` rows or of what `B` are copies of.
        attention_mask: `(B, cache + length)`, 0 for padding; None if there is none.
        length: number of new tokens.
    """
    if attention_mask is None:
        start = int(cache.get_seq_length())
        positions = torch.arange(start, start + length, device=deltas.device).expand(len(deltas), -1)
    else:
        positions = (attention_mask.long().cumsum(-1) - 1)[:, -length:].to(deltas.device)
        deltas = deltas.repeat_interleave(len(positions) // len(deltas), dim=0)
    return (positions + deltas).expand(3, -1, -1)


class TextPositionsMixin(GenerationMixin):
    """`generate`'s positions of text, without anything kept on the model."""

    def _prepare_position_ids_for_generation(
        self, inputs_tensor: torch.Tensor, model_kwargs: dict[str, Any]
    ) -> torch.Tensor:
        """`(4, B, T)` of all tokens, those in the cache included: positions in the row, then Qwen2.5-VL's three."""
        text = GenerationMixin._prepare_position_ids_for_generation(self, inputs_tensor, model_kwargs)  # (B or 1, T)
        ids = model_kwargs.get("input_ids")
        ids = inputs_tensor if ids is None or ids.shape[1] == 0 else ids
        cache, seen = model_kwargs.get("cache"), {name: model_kwargs.get(name) for name in _SEEN}
        past = 0 if cache is None else int(cache.get_seq_length())
        types = model_kwargs.get("mm_token_type_ids")
        known = rope_deltas(cache) if past else None
        if known is not None and (types is None or not bool(types[:, past:].any())):
            three = (text + known.to(text.device)).expand(3, -1, -1)
        elif types is not None and any(grids is not None for grids in seen.values()) and ids.ndim == 2:
            three, _ = self.model.get_rope_index(ids, types, **seen, attention_mask=model_kwargs.get("attention_mask"))
        else:
            three = text.expand(3, -1, -1)
        return torch.cat([text.expand(1, three.shape[1], -1), three])

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        """As in transformers; the cache also learns how far positions are ahead, for whoever continues it."""
        super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)
        cache, positions = model_kwargs.get("cache"), model_kwargs.get("position_ids")
        types = model_kwargs.get("mm_token_type_ids")
        if cache is None or positions is None or positions.shape[0] != 4:
            return
        pictures = any(model_kwargs.get(name) is not None for name in (*_SEEN, "mm_encoder_outputs"))
        if types is None or pictures or not bool(types.any()):
            remember_rope_deltas(cache, positions[1, :, -1:] - positions[0, :, -1:])
