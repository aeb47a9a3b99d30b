"""What a checkpoint can do and how large it is, read off its configurations and the headers of its weights."""

from pathlib import Path
from typing import Any

from .checkpoint_files import TensorInfo, read_json, weight_headers

# Parts of a model by the beginnings of their tensors' names.
PARTS = {
    "language model": ("model.language_model.", "lm_head."),
    "vision tower": ("model.visual.",),
    "image tokenizer": ("model.vq_model.",),
    "drawing": ("model.generation_adapter.", "generation_head."),
    "editing": ("model.source_adapter.", "model.edit_adapter.", "edit_head."),
}
_SETTINGS = (
    *("image_guidance_scale", "image_guidance_min_p", "image_temperature", "image_top_k"),
    *("line_breaks", "attend_padding"),
)

__all__ = ["describe"]


def describe(name: str, folder: Path) -> dict[str, Any]:
    """Everything that can be said about a checkpoint without loading it.

    Args:
        name: what it was called.
        folder: its files.

    Returns:
        Plain values: `model`, `folder`, `stage`, `tasks`, `languages`, `sizes` (`[height, width]`), `image_token_size`,
        `codebook_size`, `positions`, `parameters` by part (and `total`), `dtypes`, `weights_bytes`,
        `cache_bytes_per_image` (keys and values of both guidance branches at the largest size, prompts apart) and
        `sampling`.

    Raises:
        ValueError: if a file is missing or damaged.
    """
    config = read_json(folder / "config.json")
    processor = read_json(folder / "processor_config.json")
    generation = {}
    if (folder / "generation_config.json").is_file():
        generation = read_json(folder / "generation_config.json")
    tensors = weight_headers(folder)
    edits = bool(config.get("has_editing", True))
    sizes = [list(size) for size in processor.get("buckets", [])]
    token_size = int(processor.get("image_token_size", 16))
    codes = max((height * width // token_size**2 for height, width in sizes), default=0)
    return {
        "model": name,
        "folder": str(folder),
        "stage": config.get("stage"),
        "tasks": ["understanding", "text-to-image", *(["image-editing"] if edits else [])],
        "languages": sorted(processor.get("prompt_templates", {}).get("generation", {})),
        "sizes": sizes,
        "any_size": bool(processor.get("line_breaks", True)),
        "image_token_size": token_size,
        "codebook_size": config.get("codebook_size"),
        "positions": config.get("text_config", {}).get("max_position_embeddings"),
        "parameters": _parameters(tensors),
        "dtypes": _dtypes(tensors),
        "weights_bytes": sum(tensor.num_bytes for tensor in tensors.values()),
        "cache_bytes_per_image": codes * 2 * _cache_bytes_per_token(config, tensors),
        "sampling": {key: generation[key] for key in _SETTINGS if key in generation},
    }


def _parameters(tensors: dict[str, TensorInfo]) -> dict[str, int]:
    counts = dict.fromkeys(PARTS, 0)
    for name, tensor in tensors.items():
        for part, beginnings in PARTS.items():
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
