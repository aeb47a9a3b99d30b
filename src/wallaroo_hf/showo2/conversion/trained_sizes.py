"""Sizes of a released Show-o2, read off its tensors, and whether they are those of what it was trained from."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from .showo2_key_map import TABLE

__all__ = ["disagreements", "flow_sizes", "patch_sizes", "position_grid", "text_sizes", "vision_sizes"]

Tensors = Mapping[str, torch.Tensor]
_FLOW, _TEXT, _VISION = "flow_head.layers.", "model.language_model.layers.", "model.visual.semantic_layers."


def text_sizes(tensors: Tensors) -> dict[str, int]:
    """The language model's, by the names of `Qwen2Config`; `head_dim` only by products with it.

    Args:
        tensors: by our names.

    Raises:
        KeyError: if a tensor is missing.
    """
    table = tensors[TABLE].shape
    first = f"{_TEXT}0."
    return {
        "vocab_size": table[0],
        "hidden_size": table[1],
        "num_hidden_layers": _count(tensors, _TEXT),
        "intermediate_size": tensors[f"{first}mlp.gate_proj.weight"].shape[0],
        "num_attention_heads * head_dim": tensors[f"{first}self_attn.q_proj.weight"].shape[0],
        "num_key_value_heads * head_dim": tensors[f"{first}self_attn.k_proj.weight"].shape[0],
    }


def vision_sizes(tensors: Tensors) -> dict[str, int]:
    """The semantic layers', by the names of `SiglipVisionConfig`.

    Raises:
        KeyError: if a tensor is missing.
    """
    return {
        "hidden_size": tensors["model.visual.semantic_patch.weight"].shape[0],
        "num_hidden_layers": _count(tensors, _VISION),
        "intermediate_size": tensors[f"{_VISION}0.mlp.fc1.weight"].shape[0],
    }


def flow_sizes(tensors: Tensors) -> dict[str, int]:
    """All settings of [`ShowO2FlowConfig`] that are sizes; heads by the size of one, which the norm of queries has.

    Raises:
        KeyError: if a tensor is missing.
        ValueError: if layers are not made of whole heads.
    """
    first = f"{_FLOW}0."
    head = tensors[f"{first}self_attn.q_norm.weight"].shape[0]
    queries, keys = (tensors[f"{first}self_attn.{name}_proj.weight"].shape[0] for name in "qk")
    if queries % head or keys % head:
        raise ValueError(
            f"The checkpoint's flow head has queries of {queries} and keys of {keys} numbers, not made of heads of {head}; "
            f"give the folder that its authors released, whole."
        )
    frequencies = tensors["model.time_embedding.linear_1.weight"].shape[1]
    return {
        "hidden_size": tensors["flow_head.norm.weight"].shape[0],
        "intermediate_size": tensors[f"{first}mlp.gate_proj.weight"].shape[0],
        "num_hidden_layers": _count(tensors, _FLOW),
        "num_attention_heads": queries // head,
        "num_key_value_heads": keys // head,
        "head_dim": head,
        "frequency_embedding_size": frequencies,
    }


def patch_sizes(tensors: Tensors) -> dict[str, int]:
    """Channels of latents, and the edge of an image token in them.

    Raises:
        KeyError: if a tensor is missing.
    """
    shape = tensors["model.visual.semantic_patch.weight"].shape
    return {"latent_channels": shape[1], "patch_size": shape[2]}


def position_grid(tensors: Tensors, settings: Mapping[str, Any]) -> list[int]:
    """Rows and columns of the position table: as the authors' configuration says, or a square where that speaks of a
    grid of another size (the table of a SigLIP is interpolated then).

    Args:
        settings: the authors' `config.json`.

    Raises:
        KeyError: if the table is missing.
        ValueError: if neither fits.
    """
    rows = tensors["model.visual.position_embedding.weight"].shape[0]
    named: list[Any] = [settings.get(f"image_latent_{edge}") for edge in ("height", "width")]
    if all(isinstance(edge, int) and edge > 0 for edge in named) and math.prod(named) == rows:
        return named
    edge = math.isqrt(rows)
    if edge**2 != rows:
        raise ValueError(
            f"The checkpoint's position table has {rows} rows, which are neither the grid that its config.json says "
            f"({named[0]} x {named[1]}) nor a square; correct `image_latent_height` and `image_latent_width` there."
        )
    return [edge, edge]


def disagreements(found: Mapping[str, int], config: Any, names: Iterable[str]) -> list[str]:
    """Where a configuration says other sizes than tensors have.

    Args:
        found: sizes of tensors; a name may be a product, such as "num_attention_heads * head_dim".
        config: of transformers.
        names: those to compare.
    """
    faults = []
    for name in names:
        said = math.prod(_setting(config, factor) for factor in name.split(" * "))
        if said != found[name]:
            faults.append(f"`{name}` is {said} there and {found[name]} in the checkpoint")
    return faults


def _setting(config: Any, name: str) -> int:
    value: Any = getattr(config, name, None)
    if value is None and name == "head_dim":
        value = config.hidden_size // config.num_attention_heads
    return int(value)


def _count(tensors: Tensors, prefix: str) -> int:
    """How many numbered layers there are; gaps among them are found when all tensors are looked at."""
    numbers = {name.removeprefix(prefix).partition(".")[0] for name in tensors if name.startswith(prefix)}
    return len(numbers)
