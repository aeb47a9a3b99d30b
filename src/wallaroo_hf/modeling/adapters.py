"""Small bridges between the codebook and the language model, and the rules for which token meets which bridge."""

import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from transformers.utils import torch_compilable_check

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


def run_by_task(
    owner: Any, kind: Literal["adapter", "head"], image_task: torch.Tensor | int, inputs: torch.Tensor
) -> torch.Tensor:
    """Takes each position through the adapter or the head of its image task. A device map may part the parts.

    With several tasks every position goes through all parts and keeps one result: they are tiny, and it needs neither a
    data-dependent shape nor a wait for the device.

    Args:
        owner: the model that has the parts.
        kind: which entry of [`ImageTask`] names them.
        image_task: indices in `config.image_tasks`, `(B, T)`, of any value where no image stands; or one for all positions.
        inputs: `(B, T, C)`.
    """
    if isinstance(image_task, int):
        return part_of_task(owner, kind, image_task)(inputs)
    first = part_of_task(owner, kind, 0)
    chosen = first(inputs)
    for index in range(1, len(owner.config.image_tasks)):
        part = part_of_task(owner, kind, index)
        if part is not first:
            outputs = part(inputs)
            mine = (image_task == index).unsqueeze(-1).to(outputs.device)
            chosen = torch.where(mine, outputs, chosen.to(outputs.device))
    return chosen


def part_of_task(owner: Any, kind: Literal["adapter", "head"], index: int) -> nn.Module:
    """The adapter or head of an image task: its own, or that of the first task in a checkpoint that lacks it.

    Raises:
        ValueError: for an index that is none.
    """
    config = owner.config
    tasks = config.image_tasks
    if not 0 <= index < len(tasks):
        names = ", ".join(f"{number} ({task.name})" for number, task in enumerate(tasks))
        raise ValueError(f"`image_task` is {index}, but must be one of {names}.")
    task = tasks[index]
    return getattr(owner, getattr(task if config.has_task(task) else tasks[0], kind))


class TokenMasks(NamedTuple):
    """Where the special kinds of tokens stand.

    Attributes:
        vision: NaViT placeholders, `(B, T)` bool: every `<|image_pad|>` that is none of a source's.
        source: placeholders of the source to edit, `(B, T)` bool: `<|image_pad|>` between `<|pixel_start|>` and
            `<|pixel_end|>`.
        task: `(B, T)` int64: in image spans, from the token that opens them up to (not including) `<|generate_end|>`, the
            span's task as its index in `config.image_tasks`; -1 elsewhere.
    """

    vision: torch.Tensor
    source: torch.Tensor
    task: torch.Tensor

    @property
    def image(self) -> torch.Tensor:
        """Tokens of all image spans, `(B, T)` bool."""
        return self.task >= 0


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

    A source stands before a span iff `<|pixel_start|>` occurs between the previous `<|generate_end|>` (or the row's start)
    and the token that opens it.

    Args:
        starts_of_rows: `(B, T)` bool, where several rows stand one after the other (see [`row_starts`]).
    """

    def count(token_id: int) -> torch.Tensor:
        return (input_ids == token_id).cumsum(dim=-1)

    placeholder = input_ids == config.image_token_id
    sources = count(config.pixel_start_token_id)
    source = placeholder & (sources > count(config.pixel_end_token_id))
    vision = (
        placeholder & ~source
    )  # as stock, which knows no sources: also in a part of a prompt that begins inside an image
    positions = torch.arange(1, input_ids.shape[-1] + 1, device=input_ids.device)
    newest = {  # of each kind of opening token, the position of the last one so far, from 1; 0 before the first
        token: torch.where(input_ids == token, positions, 0).cummax(dim=-1).values
        for token in config.image_start_token_ids
    }
    opened = functools.reduce(torch.maximum, newest.values())
    starts = opened == positions
    ends = input_ids == config.generate_end_token_id
    image = starts.cumsum(dim=-1) > ends.cumsum(dim=-1)
    # Sources seen when the last image ended and when this one started: both counts only grow, so a running maximum
    # carries them along the row.
    resets = ends if starts_of_rows is None else ends | starts_of_rows.to(ends.device)
    before = torch.where(resets, sources, 0).cummax(dim=-1).values
    at_start = torch.where(starts, sources, 0).cummax(dim=-1).values
    task = torch.full_like(opened, -1)
    for index, one in enumerate(config.image_tasks):
        token = getattr(config, one.start_token)
        if token is None:
            continue
        fits = image & (newest[token] == opened)
        task = torch.where(fits & (at_start > before) if one.after_source else fits, index, task)
    return TokenMasks(vision, source, task)


def scatter_checked(
    inputs_embeds: torch.Tensor, mask: torch.Tensor, features: torch.Tensor, what: str, tensor_name: str
) -> torch.Tensor:
    """Writes features `(N, hidden_size)` to the N slots of `mask` `(B, T)`, in order.

    Args:
        inputs_embeds: the text's embeddings, `(B, T, hidden_size)`.
        mask: where features go.
        features: what is written.
        what: the features' name in the error.
        tensor_name: the argument that they were made of, for the error.

    Raises:
        ValueError: if the counts differ.
    """
    slots = mask.sum()
    torch_compilable_check(
        slots == len(features),
        lambda: (
            f"The prompts have room for {int(slots)} {what}, but `{tensor_name}` brings {len(features)}; pass exactly the "
            "processor's tensors, unchanged and together."
        ),
    )
    return inputs_embeds.masked_scatter(mask.unsqueeze(-1), features.to(inputs_embeds.dtype))


def fill_missing(
    given: Sequence[torch.Tensor | None], encoded: Sequence[torch.Tensor], what: str, given_name: str, pixels_name: str
) -> list[torch.Tensor]:
    """What was encoded ahead, with what was encoded now where each None is, in order.

    Args:
        given: an entry per image; None where it is yet to be encoded.
        encoded: of those, in order.
        what: the entries' name in the error.
        given_name, pixels_name: the two arguments, for the error.

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
