"""What a checkpoint can do and how large it is, read off its configurations and the headers of its weights."""

from pathlib import Path
from typing import Any

from ..files.checkpoint_files import TensorInfo, read_json, weight_headers
from .registry import Family, family_of

__all__ = ["describe"]


def describe(name: str, folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Everything that can be said about a checkpoint without loading it.

    Args:
        name: what it was called.
        folder: its files.

    Returns:
        Plain values: `model`, `folder`, `family`, `tasks`, `languages`, `sizes` (`[height, width]`), `any_size`,
        `positions`, `parameters` by part (and `total`), `dtypes`, `weights_bytes`, `cache_bytes_per_image` (keys and values
        of both guidance branches at the largest size, prompts apart), `settings` (what values each may have), `sampling`,
        and what the family adds; and those lines of a table that only the family knows.

    Raises:
        ValueError: if a file is missing or damaged, or the checkpoint belongs to no family.
    """
    config = read_json(folder / "config.json")
    family = family_of(config.get("model_type"), name)
    processor = read_json(folder / "processor_config.json")
    generation = {}
    if (folder / "generation_config.json").is_file():
        generation = read_json(folder / "generation_config.json")
    abilities = family.resolve("abilities")(config, generation, processor)
    tensors = weight_headers(folder)
    own, shown = (
        ({}, {}) if family.description is None else family.resolve("description")(config, generation, processor)
    )
    codes = max((abilities.image_tokens(*size) for size in abilities.sizes), default=0)
    facts = {
        "model": name,
        "folder": str(folder),
        "family": family.title,
        "tasks": list(abilities.tasks),
        "untrained": list(abilities.untrained),
        "languages": list(abilities.languages),
        "sizes": [list(size) for size in abilities.sizes],
        "any_size": abilities.any_size,
        "positions": abilities.max_positions,
        "parameters": _parameters(family, tensors),
        "dtypes": _dtypes(tensors),
        "weights_bytes": sum(tensor.num_bytes for tensor in tensors.values()),
        "cache_bytes_per_image": codes * 2 * _cache_bytes_per_token(config, tensors),
        "settings": {setting.name: setting.expected() for setting in abilities.settings if setting.is_offered},
        "sampling": {setting.name: setting.default for setting in abilities.settings if setting.default is not None},
    }
    return facts | own, shown


def _parameters(family: Family, tensors: dict[str, TensorInfo]) -> dict[str, int]:
    parts: dict[str, tuple[str, ...]] = {} if family.parts is None else family.resolve("parts")
    counts = dict.fromkeys(parts, 0)
    for name, tensor in tensors.items():
        for part, beginnings in parts.items():
            if name.startswith(beginnings):
                counts[part] += _count(tensor)
    return {part: count for part, count in counts.items() if count} | {"total": sum(map(_count, tensors.values()))}


def _count(tensor: TensorInfo) -> int:
    count = 1
    for edge in tensor.shape:
        count *= edge
    return count


def _dtypes(tensors: dict[str, TensorInfo]) -> dict[str, int]:
    """Bytes by dtype, the largest share first."""
    sizes: dict[str, int] = {}
    for tensor in tensors.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.num_bytes
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def _cache_bytes_per_token(config: dict[str, Any], tensors: dict[str, TensorInfo]) -> int:
    """Keys and values of one token in all layers, in the precision of the language model's weights."""
    text = config.get("text_config", {})
    layers, heads = int(text.get("num_hidden_layers", 0)), int(text.get("num_attention_heads", 1))
    width = int(text.get("hidden_size", 0)) // heads * int(text.get("num_key_value_heads", heads))
    embeddings = tensors.get("model.language_model.embed_tokens.weight")
    size = 2 if embeddings is None else embeddings.num_bytes // _count(embeddings)
    return 2 * layers * width * size
