"""Checks that the settings of one checkpoint, spread over three files, say the same thing."""

from typing import Any

from ..common.folder_settings import read_settings
from ..layout.special_tokens import config_token_ids


def read_model_config(checkpoint: Any, kwargs: dict[str, Any] | None = None) -> dict[str, Any]:
    """`config.json` of a Wallaroo model in a folder or on the Hub; empty if there is none."""
    config = read_settings(checkpoint, "config.json", kwargs or {})
    return config if config.get("model_type") == "wallaroo" else {}


def take_first_image_token_id(processor: Any, config: dict[str, Any]) -> None:
    """Image codes begin where the model's vocabulary ends: its configuration says where, and the processor takes it over.

    Args:
        config: from [`read_model_config`]; with an empty one the processor stays as it is.
    """
    vocab_size = config.get("text_config", {}).get("vocab_size")
    if vocab_size is not None:
        processor.first_image_token_id = vocab_size


def check_folder_agreement(processor: Any, checkpoint: Any, kwargs: dict[str, Any]) -> None:
    """Compares a processor with `config.json` and `generation_config.json` beside it; absent files are not compared.

    Where image codes begin is not compared but taken over: see [`take_first_image_token_id`].

    Raises:
        ValueError: naming the first setting on which they differ, or if the tokenizer has more ids than the model's
            vocabulary.
    """
    config = read_model_config(checkpoint, kwargs)
    generation_config = read_settings(checkpoint, "generation_config.json", kwargs)
    sizes = processor.indicator_sizes if processor.size_indicators else ()
    pairs: list[tuple[str, Any, Any, str, str]] = [
        (key, ids, config[key], "config.json", "the tokenizer")
        for key, ids in config_token_ids(processor.tokenizer.convert_tokens_to_ids, sizes).items()
        if key in config
    ]
    if "channel_multiplier" in config.get("vq_config", {}):
        size = 2 ** (len(config["vq_config"]["channel_multiplier"]) - 1)
        pairs.append(("image_token_size", processor.image_token_size, size, "config.json", "processor_config.json"))
    if "has_editing" in config:
        ours = processor.has_editing
        pairs.append(("has_editing", ours, config["has_editing"], "config.json", "processor_config.json"))
    if "line_breaks" in generation_config:
        value = generation_config["line_breaks"]
        pairs.append(("line_breaks", processor.line_breaks, value, "generation_config.json", "processor_config.json"))
    for name, ours, theirs, their_file, our_file in pairs:
        if ours != theirs:
            raise ValueError(
                f"The checkpoint at {checkpoint} contradicts itself: `{name}` is {theirs!r} in {their_file} but {ours!r} "
                f"by {our_file}; convert or save it again so that both come from one stage."
            )
    take_first_image_token_id(processor, config)
    ids, vocab_size = len(processor.tokenizer), config.get("text_config", {}).get("vocab_size")
    if vocab_size is not None and ids > vocab_size:
        raise ValueError(
            f"The checkpoint at {checkpoint} contradicts itself: its tokenizer has {ids} ids, but its model's vocabulary "
            f"{vocab_size}; call `model.resize_token_embeddings({ids})` and save model and processor again."
        )
