"""Refuses settings that a configuration does not have, so that a misspelt one cannot pass in silence."""

import difflib
from collections.abc import Iterable
from dataclasses import fields

from transformers import GenerationConfig

__all__ = ["field_names", "refuse_unknown_keys"]

# Accepted by transformers in any config although no field holds them.
_TRANSFORMERS_KEYS = {
    "_attn_implementation_internal",
    "_commit_hash",
    "_experts_implementation_internal",
    "_name_or_path",
    "attn_implementation",
    "auto_map",
    "custom_pipelines",
    "experts_implementation",
    "model_type",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "per_layer_config",
    "quantization_config",
    "torch_dtype",
}


def field_names(config_class: type) -> set[str]:
    """The settings of a configuration, by all their names."""
    return {field.name for field in fields(config_class)} | set(getattr(config_class, "attribute_map", {}))


def refuse_unknown_keys(config_class: type, keys: Iterable[str], also_known: Iterable[str] = ()) -> None:
    """Raises on a key that no configuration of this kind has.

    Args:
        config_class: a dataclass.
        keys: as they were given.
        also_known: keys that are taken although no field has them.

    Raises:
        ValueError: naming the key and the nearest known one.
    """
    known = field_names(config_class) | _TRANSFORMERS_KEYS | set(also_known)
    known |= set(GenerationConfig._get_default_generation_params()) | set(GenerationConfig().to_dict())
    for key in keys:
        if key not in known:
            close = difflib.get_close_matches(key, sorted(known), 1)
            hint = f"did you mean `{close[0]}`?" if close else "remove it."
            raise ValueError(f"{config_class.__name__} has no setting `{key}`; {hint}")
