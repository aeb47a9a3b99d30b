"""Writing a checkpoint folder: sharded, one shard in memory at a time, and visible only when it is whole."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file

from ..families.loading import NOT_FINITE, is_finite, refuse
from ..files.whole import give_usual_modes


def write_shards(
    folder: Path,
    tensors: Mapping[str, torch.Tensor],
    dtypes: Mapping[str, torch.dtype],
    max_shard_size: int | str,
    progress: Callable[[int], None],
    check_source: Callable[[torch.Tensor], None] = lambda tensor: None,
    check_weights: bool = True,
) -> None:
    """Writes `model*.safetensors` and its index.

    Source tensors may be memory-mapped: only what a shard holds is cast, and freed before the next one.

    Args:
        tensors: all tensors by their final names.
        dtypes: the dtype to save each in.
        max_shard_size: bytes, or a string such as "5GB".
        progress: called with the number of tensors of each shard that was written.
        check_source: called with each source tensor when it is read.
        check_weights: whether to refuse weights that are not finite as they are written.

    Raises:
        ValueError: naming up to five weights that are not finite, or what `check_source` raises.
    """
    shapes = {name: torch.empty(t.shape, dtype=dtypes[name], device="meta") for name, t in tensors.items()}
    split = split_torch_state_dict_into_shards(
        shapes, filename_pattern="model{suffix}.safetensors", max_shard_size=max_shard_size
    )
    for filename, names in split.filename_to_tensors.items():
        # clones: a saved tensor must own its memory, and the source is a map of a file
        shard, faults = {}, []
        for name in names:
            source = tensors[name]
            check_source(source)
            shard[name] = source.to(dtypes[name], copy=True).contiguous()
            if check_weights and not is_finite(shard[name]):
                faults.append(_why_not_finite(name, source, dtypes[name]))
        refuse(faults, "checkpoint", "get whole files, or choose another precision where that is too small")
        save_file(shard, folder / filename, metadata={"format": "pt"})
        del shard
        progress(len(names))
    give_usual_modes(folder)
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def _why_not_finite(name: str, source: torch.Tensor, dtype: torch.dtype) -> str:
    if is_finite(source):
        return f"`{name}` has numbers that {str(dtype).removeprefix('torch.')} cannot hold"
    return f"`{name}` is {NOT_FINITE}"
