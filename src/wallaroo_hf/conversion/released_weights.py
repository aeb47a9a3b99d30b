"""Released weights of any family: their new names, that none is missing or left over, and writing them."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers.utils import cached_file

from ..families.loading import some
from ..files.whole import new_folder
from .released_files import LOADING_ERRORS, ArchiveTensors, one_line
from .shards import write_shards

__all__ = [
    "DTYPES",
    "check_complete",
    "optional_file",
    "reading_source",
    "renamed",
    "target_dtype",
    "write_checkpoint",
]

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_SOURCE_DTYPES = (*DTYPES.values(), torch.float64)


class _Settings(Protocol):
    def save_pretrained(self, folder: Path) -> Any: ...


def target_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """A dtype that weights can be saved in.

    Raises:
        ValueError: if it is none of them.
    """
    if isinstance(dtype, torch.dtype) and dtype in DTYPES.values():
        return dtype
    if dtype in DTYPES:
        return DTYPES[str(dtype)]
    raise ValueError(f"`dtype` is {dtype!r}, but must be one of {', '.join(DTYPES)}.")


def renamed(
    source: Mapping[str, torch.Tensor], rename: Callable[[str], str | None], what: str
) -> dict[str, torch.Tensor]:
    """Tensors by their new names.

    Args:
        rename: the new name of a key, or None if it is unknown.
        what: whose tensors they are, for the message.

    Raises:
        ValueError: for keys that are unknown, or get the name of another.
    """
    named: dict[str, torch.Tensor] = {}
    unknown = []
    for key, tensor in source.items():
        name = rename(key)
        if name is None or name in named:  # two keys of one name would hide a tensor
            unknown.append(key)
        else:
            named[name] = tensor
    if unknown:
        raise ValueError(
            f"The {what} has keys that no part of the model takes: {some(unknown)}; is it the right file?"
        )
    return named


def check_complete(
    tensors: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    what: str,
    sources: tuple[str, str] = (
        "the base configuration and the image tokenizer",
        "checkpoint, image tokenizer and base",
    ),
) -> None:
    """Every source tensor used, every target filled, every shape equal, and all real numbers.

    Args:
        expected: of the model that was made for them, on the meta device.
        what: whose tensors they are, for messages.
        sources: what that model was made of, and all that must belong together, for messages.

    Raises:
        ValueError: if not.
    """
    extra = sorted(set(tensors) - set(expected))
    missing = sorted(set(expected) - set(tensors))
    if extra:
        raise ValueError(
            f"The {what} has tensors that the model does not take: {some(extra)}; is it the right file (and base)?"
        )
    if missing:
        raise ValueError(
            f"The {what} lacks tensors that the model needs: {some(missing)}; is it the right file (and base)?"
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise ValueError(
                f"`{name}` has shape {tuple(tensor.shape)}, but the model made from {sources[0]} needs "
                f"{tuple(expected[name].shape)}; do {sources[1]} belong together?"
            )
    odd = [f"`{name}` is {tensor.dtype}" for name, tensor in tensors.items() if tensor.dtype not in _SOURCE_DTYPES]
    if odd:
        raise ValueError(
            f"The {what} has weights that are no real numbers in 16 to 64 bits: {some(odd)}; give the file that was "
            "trained, not a quantized or otherwise changed one."
        )


def write_checkpoint(
    output: Path,
    settings: Sequence[_Settings],
    tensors: Mapping[str, torch.Tensor],
    dtypes: Mapping[str, torch.dtype],
    sources: Sequence[ArchiveTensors],
    max_shard_size: int | str = "5GB",
    progress: Callable[[int, int], None] | None = None,
    texts: Mapping[str, str] | None = None,
) -> None:
    """Writes a folder that appears when it is whole; one shard is in memory at a time.

    Args:
        output: the folder; must not exist, or be empty.
        settings: processor and configurations.
        tensors: all tensors by their final names.
        dtypes: the dtype to save each in.
        sources: the archives that they are of, whose checksums are compared.
        max_shard_size: largest weight file.
        progress: called with tensors written and tensors in all.
        texts: other files by name.

    Raises:
        ValueError: for damaged weights.
    """
    with new_folder(output) as folder:
        for one in settings:
            one.save_pretrained(folder)
        for name, text in (texts or {}).items():
            (folder / name).write_text(text, encoding="utf-8")
        written = 0

        def report(count: int) -> None:
            nonlocal written
            written += count
            if progress is not None:
                progress(written, len(tensors))

        def check(tensor: torch.Tensor) -> None:
            for source in sources:
                source.checksums.check(tensor)

        write_shards(folder, tensors, dtypes, max_shard_size, report, check)


def optional_file(source: str | Path, name: str) -> Path | None:
    """A file of a folder or Hub id; None if there is none of that name."""
    path = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
    return None if path is None else Path(path)


@contextlib.contextmanager
def reading_source(source: str | Path, what: str, part: str, remedy: str) -> Iterator[None]:
    """Puts a failure to load a part of what weights were trained from into one sentence.

    Args:
        source: folder or Hub id.
        what: what it is, for the message.
        part: what is read, for the message.
        remedy: what to do, for the message.

    Raises:
        ValueError: in place of what libraries raise.
    """
    try:
        yield
    except (*LOADING_ERRORS, StrictDataclassError) as error:
        raise ValueError(
            f"No {part} could be loaded from the {what} '{source}' ({one_line(error)}); {remedy}."
        ) from error
