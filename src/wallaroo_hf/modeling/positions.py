"""Positions of Wallaroo's tokens: NaViT tokens are 2-D, all else 1-D."""

from typing import Any

import torch
from transformers import Cache, Qwen2_5_VLModel
from transformers.utils import torch_compilable_check
from transformers.utils.deprecation import deprecate_kwarg

from ..generation.text_positions import positions_behind, remember_rope_deltas, rope_deltas
from .adapters import token_masks
from .configuration import WallarooConfig

VIDEO_TYPE = 2  # in `mm_token_type_ids`
_TYPES = {"image": 1, "video": VIDEO_TYPE}


def _text_positions(input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """What `get_rope_index` makes of rows without images, without a look at the values, so that graphs can be traced."""
    if attention_mask is None:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
    else:
        attention_mask = attention_mask.to(input_ids.device)
        positions = (attention_mask.long().cumsum(-1) - 1).masked_fill(attention_mask == 0, 1)
    return positions.expand(3, -1, -1), input_ids.new_zeros(len(input_ids), 1)


class PositionsMixin(Qwen2_5_VLModel):
    """Qwen2.5-VL's positions by our rules, and without anything kept on the model."""

    config: WallarooConfig

    def mm_token_type_ids(self, input_ids: torch.Tensor) -> torch.Tensor:
        """1 for NaViT placeholders, 2 for those of videos, else 0: `(B, T)` int64.

        Without it Qwen2.5-VL silently computes other positions.
        """
        of_videos = (input_ids == self.config.video_token_id).long()
        return token_masks(input_ids, self.config).vision.long() + VIDEO_TYPE * of_videos

    def get_rope_index(
        self,
        input_ids: torch.Tensor,
        mm_token_type_ids: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        video_grid_thw: torch.Tensor | None = None,
        second_per_grid_ts: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions `(3, B, T)` and offsets `(B, 1)`: NaViT tokens are 2-D, all else 1-D, padding holds 1.

        Args:
            input_ids: `(B, T)`.
            mm_token_type_ids: which tokens the vision tower made, `(B, T)`; None = read off the ids.
            image_grid_thw, video_grid_thw: grids of the vision tower's patches, `(N, 3)`.
            second_per_grid_ts: of videos.
            attention_mask: `(B, T)`, 0 at padding.
            kwargs: passed on.

        Raises:
            ValueError: if there are more pictures or videos in the rows than grids of them.
        """
        if mm_token_type_ids is None:
            mm_token_type_ids = self.mm_token_type_ids(input_ids)
        if image_grid_thw is None and video_grid_thw is None:
            torch_compilable_check(
                ~(mm_token_type_ids > 0).any(),
                "The prompts hold a vision block, but there is no `image_grid_thw` and no `video_grid_thw`; pass all "
                "tensors that the processor returned.",
            )
            return _text_positions(input_ids, attention_mask)
        for kind, grids in (("image", image_grid_thw), ("video", video_grid_thw)):
            if grids is None and bool((mm_token_type_ids == _TYPES[kind]).any()):
                raise ValueError(
                    f"The prompts hold a vision block of a {kind}, but there is no `{kind}_grid_thw`; pass all "
                    "tensors that the processor returned."
                )
        given = (input_ids, mm_token_type_ids, image_grid_thw, video_grid_thw, second_per_grid_ts, attention_mask)
        try:
            position_ids, deltas = super().get_rope_index(*given, **kwargs)
        except StopIteration as error:
            raise ValueError(
                "The prompts hold more pictures or videos than `image_grid_thw` and `video_grid_thw` tell of; pass exactly "
                "the processor's tensors."
            ) from error
        if attention_mask is not None:
            position_ids = position_ids.masked_fill(attention_mask.to(position_ids.device) == 0, 1)
        return position_ids, deltas

    @deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")
    def compute_3d_position_ids(
        self,
        input_ids: torch.Tensor | None,
        image_grid_thw: torch.Tensor | None,
        video_grid_thw: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        cache: Cache | None,
        second_per_grid_ts: torch.Tensor | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
    ) -> torch.Tensor | None:
        """As in Qwen2.5-VL, with two differences.

        Rows without any image get their positions here too, so that padding never shifts them. And how far positions are
        ahead of tokens is kept with the cache, not on the model, whose other callers would read it.

        Args:
            input_ids: `(B, T)`, the new tokens.
            image_grid_thw, video_grid_thw: grids of the vision tower's patches, `(N, 3)`.
            inputs_embeds: `(B, T, hidden_size)`.
            attention_mask: over past and new tokens, `(B, S)`.
            cache: of the tokens before; None = there are none.
            second_per_grid_ts: of videos.
            mm_token_type_ids: which tokens the vision tower made; None = read off the ids.

        Returns:
            `(3, B, T)`, or None where they are plain and the language model makes them.
        """
        past_length = 0 if cache is None else int(cache.get_seq_length())
        two_dimensional = attention_mask is None or (
            isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2
        )
        if input_ids is not None and past_length == 0 and two_dimensional:
            position_ids, deltas = self.get_rope_index(
                input_ids, mm_token_type_ids, image_grid_thw, video_grid_thw, second_per_grid_ts, attention_mask
            )
            if cache is not None:
                remember_rope_deltas(cache, deltas)
            return position_ids
        known = rope_deltas(cache)
        if cache is None or known is None or not past_length or inputs_embeds is None or not two_dimensional:
            return None
        return positions_behind(cache, known.to(inputs_embeds.device), attention_mask, inputs_embeds.shape[1])
