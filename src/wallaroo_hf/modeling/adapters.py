"""Small bridges between the codebook and the language model, and the rules for which token meets which bridge."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from .configuration import WallarooConfig


class WallarooAdapter(nn.Sequential):
    """Image vectors into the language model: Linear, GELU, Linear. `(..., embed_dim)` to `(..., hidden_size)`."""

    def __init__(self, config: WallarooConfig) -> None:
        hidden = config.text_config.hidden_size
        super().__init__(nn.Linear(config.vq_config.embed_dim, hidden), nn.GELU(), nn.Linear(hidden, hidden))

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Casts the (float32) vectors to the adapter's dtype first."""
        return super().forward(vectors.to(self[0].weight.dtype))


class WallarooImageHead(nn.Sequential):
    """Hidden states to codes: Linear, GELU, Linear without bias. `(..., hidden_size)` to `(..., codebook_size)`."""

    def __init__(self, config: WallarooConfig) -> None:
        hidden = config.text_config.hidden_size
        super().__init__(nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, config.codebook_size, bias=False))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Casts to the head's dtype first: one that trains is float32, whatever the rest of the model is."""
        return super().forward(hidden_states.to(self[0].weight.dtype))


def choose_by_task(edit_mask: torch.Tensor, edited: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
    """`edited` where `edit_mask` `(B, T)` says so, else `generated`, both `(B, T, C)`; a device map may part the three."""
    device = edited.device
    return torch.where(edit_mask.unsqueeze(-1).to(device), edited, generated.to(device))


class TokenMasks(NamedTuple):
    """Where the special kinds of tokens stand, all `(B, T)` bool.

    Attributes:
        vision: NaViT placeholders: `<|image_pad|>` between `<|vision_start|>` and `<|vision_end|>`.
        source: placeholders of the source to edit: `<|image_pad|>` between `<|pixel_start|>` and `<|pixel_end|>`.
        edit: tokens of image spans that are edits, from their `<|generate_start|>` on.
        image: tokens of all image spans, from `<|generate_start|>` up to (not including) `<|generate_end|>`.
    """

    vision: torch.Tensor
    source: torch.Tensor
    edit: torch.Tensor
    image: torch.Tensor


def row_starts(position_ids: torch.Tensor | None) -> torch.Tensor | None:
    """Where rows begin in a padding-free batch: `(B, T)` bool, or None if the positions do not tell.

    Args:
        position_ids: `(4, B, T)` with the position in its row first, as transformers lays them out for packed rows.
    """
    if position_ids is None or position_ids.ndim != 3 or position_ids.shape[0] != 4:
        return None
    return position_ids[0] == 0


def token_masks(
    input_ids: torch.Tensor, config: WallarooConfig, starts_of_rows: torch.Tensor | None = None
) -> TokenMasks:
    """Reads the layout off token ids `(B, T)`, which must start where the rows start.

    A span is an edit iff `<|pixel_start|>` occurs between the previous `<|generate_end|>` (or the row's start) and its
    `<|generate_start|>`.

    Args:
        starts_of_rows: `(B, T)` bool, where several rows stand one after the other (see [`row_starts`]).
    """

    def count(token_id: int) -> torch.Tensor:
        return (input_ids == token_id).cumsum(dim=-1)

    placeholder = input_ids == config.image_token_id
    vision = placeholder & (count(config.vision_start_token_id) > count(config.vision_end_token_id))
    sources = count(config.pixel_start_token_id)
    source = placeholder & (sources > count(config.pixel_end_token_id))
    starts = input_ids == config.generate_start_token_id
    ends = input_ids == config.generate_end_token_id
    image = starts.cumsum(dim=-1) > ends.cumsum(dim=-1)
    # Sources seen when the last image ended and when this one started: both counts only grow, so a running maximum
    # carries them along the row.
    resets = ends if starts_of_rows is None else ends | starts_of_rows.to(ends.device)
    before = torch.where(resets, sources, 0).cummax(dim=-1).values
    at_start = torch.where(starts, sources, 0).cummax(dim=-1).values
    return TokenMasks(vision, source, image & (at_start > before), image)


def scatter_checked(
    inputs_embeds: torch.Tensor, mask: torch.Tensor, features: torch.Tensor, what: str, tensor_name: str
) -> torch.Tensor:
    """Writes features `(N, hidden_size)` to the N places of `mask` `(B, T)`, in order.

    Raises:
        ValueError: if the counts differ.
    """
    places = int(mask.sum())
    if places != len(features):
        raise ValueError(
            f"The prompts have room for {places} {what}, but `{tensor_name}` brings {len(features)}; pass exactly the "
            "processor's tensors, unchanged and together."
        )
    return inputs_embeds.masked_scatter(mask.unsqueeze(-1), features.to(inputs_embeds.dtype))


def fill_missing(
    given: Sequence[torch.Tensor | None], encoded: Sequence[torch.Tensor], what: str, given_name: str, pixels_name: str
) -> list[torch.Tensor]:
    """What was encoded ahead, with what was encoded now in the place of each None, in order.

    Raises:
        ValueError: if there are not as many of these.
    """
    missing = sum(entry is None for entry in given)
    if missing != len(encoded):
        raise ValueError(
            f"`{given_name}` leaves {missing} {what} to be encoded, but `{pixels_name}` has {len(encoded)} images; give "
            "the pixels of exactly those whose entry is None."
        )
    queue = iter(encoded)
    return [next(queue) if entry is None else entry for entry in given]
