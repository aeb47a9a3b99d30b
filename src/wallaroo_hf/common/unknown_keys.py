"""Settings that a configuration does not have: refused where they are typed, told and kept where a file holds them."""

import difflib
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, Self

from transformers import GenerationConfig, PreTrainedConfig
from transformers.utils import logging

__all__ = ["WrittenConfig", "field_names", "refuse_unknown_keys"]

logger = logging.get_logger(__name__)

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
    "tie_word_embeddings",
    "torch_dtype",
}


class WrittenConfig(PreTrainedConfig):
    """A configuration that knows whether it was read from a file, where other tools may have left notes of their own.

    `transformers_version` tells: all that was ever saved has it, and nobody types it.
    """

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Self:
        """As in transformers; keys that nothing here reads are told and kept, see [`refuse_unknown_keys`].

        Args:
            config_dict: what a file held.
            kwargs: as in transformers.
        """
        return super().from_dict(_written(config_dict), **kwargs)

    @property
    def is_written(self) -> bool:
        """Whether the settings come from a file, or from `to_dict`."""
        return self.transformers_version is not None

    def pass_on_written(self, *names: str) -> None:
        """Tells parts that are still dictionaries, and are [`WrittenConfig`]s too, that they come from a file."""
        for name in names:
            part = getattr(self, name)
            if self.is_written and isinstance(part, dict):
                setattr(self, name, _written(part))


def _written(config_dict: dict[str, Any]) -> dict[str, Any]:
    version = config_dict.get("transformers_version")
    return {**config_dict, "transformers_version": "unknown" if version is None else version}


def field_names(config_class: type) -> set[str]:
    """The settings of a configuration, by all their names."""
    return {field.name for field in fields(config_class)} | set(getattr(config_class, "attribute_map", {}))


def refuse_unknown_keys(
    config_class: type, keys: Iterable[str], also_known: Iterable[str] = (), written: bool = False
) -> None:
    """Raises on a key that no configuration of this kind has.

    Args:
        config_class: a dataclass.
        keys: as they were given.
        also_known: keys that are taken although no field has them.
        written: whether they come from a file, see [`WrittenConfig`]; then a warning tells them, and nothing is raised:
            tools leave notes on `model.config`, and what was saved must load.

    Raises:
        ValueError: naming the key and the nearest known one.
    """
    known = field_names(config_class) | _TRANSFORMERS_KEYS | set(also_known)
    known |= set(GenerationConfig._get_default_generation_params()) | set(GenerationConfig().to_dict())
    for key in keys:
        if key not in known:
            close = difflib.get_close_matches(key, sorted(known), 1)
            meant = f"did you mean `{close[0]}`?" if close else ""
            if not written:
                raise ValueError(f"{config_class.__name__} has no setting `{key}`; {meant or 'remove it.'}")
            told = f"; {meant}" if meant else "."
            logger.warning(
                "%s has no setting `%s`; it is kept, and nothing reads it%s", config_class.__name__, key, told
            )
