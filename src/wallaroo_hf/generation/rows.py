"""Rows of a branch one by one, and a store of null prompts that were already run."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Branch:
    """One guidance branch: a prompt per row, left-padded, with its images.

    Attributes:
        input_ids, attention_mask: `(B, L)`.
        pixel_values, image_grid_thw: NaViT patches of all rows, in order.
        source_pixel_values: sources of all rows, in order.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    pixel_values: torch.Tensor | None = None
    image_grid_thw: torch.Tensor | None = None
    source_pixel_values: Sequence[torch.Tensor] | None = None

    def to(self, device: torch.device) -> "Branch":
        """The branch with its tensors on a device (sources are moved when they are encoded)."""

        def move(value: Any) -> Any:
            return value.to(device) if isinstance(value, torch.Tensor) else value

        return Branch(*(move(getattr(self, name)) for name in Branch.__dataclass_fields__))


def split_rows(model: Any, branch: Branch) -> list[Branch]:
    """Each row of a branch alone: its ids without padding, its own images."""
    config = model.config
    images, patches, sources, rows = 0, 0, 0, []
    for ids, mask in zip(branch.input_ids, branch.attention_mask, strict=True):
        own = ids[mask.bool()].unsqueeze(0)
        num_images = int((own == config.vision_start_token_id).sum())
        num_sources = int((own == config.pixel_start_token_id).sum())
        grid = None if branch.image_grid_thw is None else branch.image_grid_thw[images : images + num_images]
        pixels = None
        if grid is not None and branch.pixel_values is not None and num_images:
            count = int(grid.prod(dim=-1).sum())
            pixels = branch.pixel_values[patches : patches + count]
            patches += count
        own_sources = None
        if branch.source_pixel_values is not None and num_sources:
            own_sources = branch.source_pixel_values[sources : sources + num_sources]
        rows.append(
            Branch(own, torch.ones_like(own), pixels, grid if num_images else None, own_sources).to(model.device)
        )
        images, sources = images + num_images, sources + num_sources
    return rows


@dataclass(frozen=True)
class NullPrompt:
    """What a null prompt left behind.

    Attributes:
        layers: keys and values of each layer, `(1, heads, L, head_dim)`.
        image_logits: `(1, 1, codebook_size)`, of the first code.
        position_ids: `(3, 1, 1)`, of the last token.
    """

    layers: list[tuple[torch.Tensor, torch.Tensor]]
    image_logits: torch.Tensor
    position_ids: torch.Tensor


class NullPromptCache:
    r"""Keeps the prefill of unconditional prompts from call to call, so that it is computed once per size and template.

    For an edit this prompt (black source, no words) is as long as the conditional one. Pass the same object to
    `generate(null_prompt_cache=...)`. It knows prompts and images, not weights: call [`~NullPromptCache.clear`] after
    anything that changes the model (training, loading or switching adapters, casting).

    Args:
        max_prompts: how many to keep; the least recently used go first. One prompt of the 7B model takes about 80 MB at
            512x512.
    """

    def __init__(self, max_prompts: int = 4) -> None:
        self.max_prompts = max_prompts
        self._prompts: OrderedDict[str, NullPrompt] = OrderedDict()

    def __len__(self) -> int:
        return len(self._prompts)

    def clear(self) -> None:
        """Forgets everything."""
        self._prompts.clear()

    def get(self, key: str) -> NullPrompt | None:
        """A prompt that is kept, or None."""
        if key in self._prompts:
            self._prompts.move_to_end(key)
        return self._prompts.get(key)

    def put(self, key: str, prompt: NullPrompt) -> None:
        """Keeps a prompt."""
        self._prompts[key] = prompt
        while len(self._prompts) > self.max_prompts:
            self._prompts.popitem(last=False)

    @staticmethod
    def key(row: Branch) -> str:
        """What a one-row branch is known by: its ids and all its pixels."""
        digest = hashlib.blake2b()
        sources = () if row.source_pixel_values is None else row.source_pixel_values
        for tensor in (row.input_ids, row.pixel_values, row.image_grid_thw, *sources):
            if tensor is not None:
                digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
                digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()
