"""A store of null prompts that were already run."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

import torch

from .branches import Branch


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
    r"""Keeps the prefill of null prompts from call to call, so that it is computed once per size and template.

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
        pixels, sources = row.pictures.get("pixel_values"), row.pictures.get("source_pixel_values", ())
        for tensor in (row.input_ids, pixels, row.image_grid_thw, *sources):
            if tensor is not None:
                digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
                digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()
