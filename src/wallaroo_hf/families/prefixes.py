"""What a model has read, kept for the next turn of a chat: [`PrefixStore`]. The tensors in it are the families'."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

__all__ = ["MEBIBYTE", "Block", "KeptParts", "PrefixStore", "Prefixes", "Prompt"]

MEBIBYTE = 2**20

# By name, tensors with the tokens that were read in their last dimension but one: keys and values of each layer.
KeptParts = Mapping[str, "Sequence[torch.Tensor]"]


class Block(NamedTuple):
    """A picture or video in a prompt.

    Attributes:
        start, end: positions of its first token, and behind its last.
        digest: of all that the model is given of it.
    """

    start: int
    end: int
    digest: bytes


@dataclass(frozen=True)
class Prompt:
    """What is read, to the last bit: prompts that are equal up to a position are read alike up to there.

    Attributes:
        ids: of its tokens.
        blocks: its pictures and videos, in order.
    """

    ids: Sequence[int]
    blocks: Sequence[Block] = ()

    def common(self, other: Prompt) -> int:
        """How many tokens from the beginning on are the same in both; never a part of a picture."""
        length = min(len(self.ids), len(other.ids))
        length = next((index for index in range(length) if self.ids[index] != other.ids[index]), length)
        for own in (self.blocks, other.blocks):
            cut = [block.start for block in own if block.start < length < block.end]
            length = min(length, *cut) if cut else length
        for one, another in zip(self.blocks, other.blocks):
            if one != another:
                return min(length, one.start, another.start)
        return length

    def up_to(self, length: int) -> Prompt:
        """Its beginning, of so many tokens and with the pictures that are whole in them."""
        return Prompt(self.ids[:length], tuple(block for block in self.blocks if block.end <= length))


@dataclass
class _Entry:
    owner: str
    prompt: Prompt
    parts: KeptParts
    num_bytes: int


class PrefixStore:
    """Keeps what was read of prompts, so that one that begins alike is read from there on.

    What is found depends on ids and pixels alone, so nothing of one chat can get into the answer to another; and who asks
    finds only what the same owner left. It knows nothing of weights: call [`~PrefixStore.clear`] after anything that
    changes the model (training, switching adapters, moving or casting it).

    Args:
        max_bytes: of tensors; those that were used least recently go first. 0 = nothing is kept. Without anything read it
            holds no memory.
        least: tokens that must be the same for a prompt to be read from there on. Rows of a batch that are read each for
            itself cost more than a common read of the few tokens that all chats begin with.

    Raises:
        ValueError: if it is negative.
    """

    def __init__(self, max_bytes: int, least: int = 1) -> None:
        if max_bytes < 0:
            raise ValueError(f"`max_bytes` is {max_bytes}, but must be at least 0; 0 keeps nothing.")
        self.max_bytes, self.least = max_bytes, least
        self.hits = self.misses = 0  # prompts that began as one that was kept, and others
        self.tokens_reused = self.tokens_read = 0  # of all prompts
        self._entries: list[_Entry] = []  # the most recently used one last
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def num_bytes(self) -> int:
        """What it holds now."""
        with self._lock:
            return sum(entry.num_bytes for entry in self._entries)

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._entries.clear()

    def of(self, owner: str = "") -> Prefixes:
        """What an owner has in it.

        Args:
            owner: a client, a session; nobody finds what another one left.
        """
        return Prefixes(self, owner)

    def find(self, owner: str, prompt: Prompt, names: Sequence[str]) -> tuple[int, KeptParts]:
        """The longest beginning of a prompt that is kept, short of its last token.

        Args:
            owner: see [`~PrefixStore.of`].
            prompt: what shall be read.
            names: of the parts that are needed.

        Returns:
            How many tokens, and the parts of as many; 0 and nothing if there is none.
        """
        longest, found = 0, None
        with self._lock:
            for entry in self._entries:
                if entry.owner == owner and all(name in entry.parts for name in names):
                    common = entry.prompt.common(prompt)
                    if common >= len(prompt.ids):  # the last token is read anew: something must say what follows it
                        last = [block.start for block in prompt.blocks if block.end == len(prompt.ids)]
                        common = min([len(prompt.ids) - 1, *last])
                    if common > longest:
                        longest, found = common, entry
            if found is None or longest < self.least:
                longest, found = 0, None
            else:
                self._entries.remove(found)
                self._entries.append(found)
            self.hits, self.misses = self.hits + (found is not None), self.misses + (found is None)
            self.tokens_reused += longest
            self.tokens_read += len(prompt.ids) - longest
        return longest, {} if found is None else {name: _cut(found.parts[name], longest) for name in names}

    def keep(self, owner: str, prompt: Prompt, parts: KeptParts) -> None:
        """Keeps what was read; what it goes on from is forgotten, and what there is no room for any more.

        Args:
            owner: see [`~PrefixStore.of`].
            prompt: what was read.
            parts: of each at least as many tokens; what is more of them is not kept.
        """
        length = len(prompt.ids)
        cut = {name: _cut(tensors, length) for name, tensors in parts.items()}
        num_bytes = sum(tensor.nbytes for tensors in cut.values() for tensor in tensors)
        if not length or num_bytes > self.max_bytes:
            return
        own = {name: [_alone(tensor) for tensor in tensors] for name, tensors in cut.items()}
        with self._lock:
            self._entries = [
                entry
                for entry in self._entries
                if entry.owner != owner
                or not entry.parts.keys() <= own.keys()
                or entry.prompt.common(prompt) < len(entry.prompt.ids)
            ]
            self._entries.append(_Entry(owner, prompt, own, num_bytes))
            while sum(entry.num_bytes for entry in self._entries) > self.max_bytes:
                self._entries.pop(0)


@dataclass(frozen=True)
class Prefixes:
    """What one owner has in a store.

    Attributes:
        store: that it is in.
        owner: its name there.
    """

    store: PrefixStore
    owner: str = ""

    def find(self, prompt: Prompt, names: Sequence[str]) -> tuple[int, KeptParts]:
        """See [`PrefixStore.find`] for the arguments."""
        return self.store.find(self.owner, prompt, names)

    def keep(self, prompt: Prompt, parts: KeptParts) -> None:
        """See [`PrefixStore.keep`] for the arguments."""
        self.store.keep(self.owner, prompt, parts)


def _cut(tensors: Sequence[torch.Tensor], length: int) -> list[torch.Tensor]:
    return [tensor[..., :length, :] for tensor in tensors]


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that keeps no larger one in memory."""
    whole = tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if whole else tensor.clone()
