"""Tensors of safetensors files under other names, read when they are asked for: [`StoredTensors`]."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

__all__ = ["StoredTensors"]

_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}


class StoredTensors(Mapping[str, torch.Tensor]):
    """Tensors by their new names, read from their files when they are asked for.

    Args:
        files: safetensors.
        rename: the new name of a tensor; None leaves it out.

    Raises:
        ValueError: for a file that cannot be read.
    """

    def __init__(self, files: Iterable[Path], rename: Callable[[str], str | None]) -> None:
        self._places: dict[str, tuple[Any, str]] = {}
        for path in files:
            try:
                opened = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise ValueError(f"The weights '{path}' cannot be read ({error}); download them again.") from error
            for stored in opened.keys():  # noqa: SIM118  it is no dictionary
                name = rename(stored)
                if name is not None:
                    self._places[name] = (opened, stored)

    def __getitem__(self, name: str) -> torch.Tensor:
        file, stored = self._places[name]
        return file.get_tensor(stored)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, by its header."""
        file, stored = self._places[name]
        return tuple(file.get_slice(stored).get_shape())

    def dtype(self, name: str) -> torch.dtype:
        """The dtype of a tensor, by its header where it is a usual one."""
        file, stored = self._places[name]
        found = _DTYPES.get(file.get_slice(stored).get_dtype())
        return self[name].dtype if found is None else found
