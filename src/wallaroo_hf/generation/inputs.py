"""Reading what `generate` was given: settings, and what cannot work."""

import difflib
import math
from collections.abc import Callable
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.integrations.fsdp import is_fsdp_managed_module

from ..common.drawn_values import read_number

# What cannot work while drawing: option -> why.
_REFUSED = {
    "assistant_model": "assisted decoding drafts text",
    "prompt_lookup_num_tokens": "prompt lookup drafts text",
    "penalty_alpha": "contrastive search ranks text candidates",
    "dola_layers": "DoLa contrasts the text head",
    "custom_generate": "drawing is itself the decoding method",
    "prefix_allowed_tokens_fn": "the image's layout is fixed",
    "force_words_ids": "the image's layout is fixed",
    "stop_strings": "there is no text to search",
    "token_healing": "there is no text to heal",
    "watermarking_config": "the watermark is defined on the text vocabulary",
    "inputs_embeds": "the layout is read off the ids",
    "position_ids": "positions follow from the layout",
    "negative_prompt_ids": "the processor's `negative_input_ids` are the negative prompt",
    "negative_prompt_attention_mask": "the processor's `negative_attention_mask` is the negative prompt's",
    "source_mask": "sources are masked in training only",
    "prefill_chunk_size": "the prompt is filled in one piece",
}


# Sampling settings of transformers; as `image_` entries of a generation config they are for images.
IMAGE_SAMPLING = (
    *("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p"),
    *("epsilon_cutoff", "eta_cutoff"),
)
_IMAGE_ENTRIES = {f"image_{name}" for name in (*IMAGE_SAMPLING, "guidance_scale", "guidance_min_p")}


def refuse_unknown_entries(config: GenerationConfig | None) -> None:
    """Refuses an `image_` entry of a generation config that nothing reads, a misspelt one for example.

    Raises:
        ValueError: if there is one.
    """
    given = {} if config is None else vars(config)
    for name in sorted(name for name in given if name.startswith("image_") and given[name] is not None):
        if name not in _IMAGE_ENTRIES:
            close = difflib.get_close_matches(name, sorted(_IMAGE_ENTRIES), 1, 0.8)
            hint = (
                f"did you mean `{close[0]}`?" if close else f"the known ones are {', '.join(sorted(_IMAGE_ENTRIES))}."
            )
            raise ValueError(f"The generation config has an entry `{name}`, which means nothing; {hint}")


def look_up(passed: GenerationConfig | None, own: GenerationConfig, name: str, argument: Any, default: Any) -> Any:
    """Argument, else the passed generation config, else the model's, else the default.

    Args:
        passed: the generation config that the caller gave.
        own: the model's.
        name: of the entry in both.
        argument: what the caller gave by itself.
        default: where nobody says anything.
    """
    for value in (argument, getattr(passed, name, None), getattr(own, name, None)):
        if value is not None:
            return value
    return default


def refuse_impossible(kwargs: dict[str, Any], lookup: Callable[[str, Any, Any], Any]) -> None:
    """Refuses ways to generate that cannot draw, given as arguments or in a generation config.

    Raises:
        ValueError: if one is asked for.
    """
    if lookup("num_beams", kwargs.get("num_beams"), 1) > 1:
        raise ValueError(
            "Beam search cannot draw images (codes are decided in pairs of guidance branches); use num_beams=1."
        )
    if lookup("use_cache", kwargs.get("use_cache"), True) is False:
        raise ValueError("Drawing needs the key-value cache; leave out use_cache=False.")
    if lookup("cache_implementation", kwargs.get("cache_implementation"), None) == "paged":
        raise ValueError("Continuous batching cannot draw images yet; leave out cache_implementation='paged'.")
    for name in sorted(_IMAGE_ENTRIES & kwargs.keys()):
        argument = name.removeprefix("image_")
        raise ValueError(f"`{name}` is an entry of the generation config; as an argument it is `{argument}`.")
    for name in IMAGE_SAMPLING:
        if kwargs.get(name) is not None and not math.isfinite(read_number(name, kwargs[name])):
            raise ValueError(f"`{name}` is {kwargs[name]}, but must be a finite number.")
    for name, reason in _REFUSED.items():
        value = kwargs.pop(name, None)
        if value is not None and value is not False:
            raise ValueError(f"`{name}` cannot be used while drawing ({reason}); leave it out.")


def check_scale(name: str, scale: Any) -> None:
    """Refuses what is no guidance scale: it is a finite number, or None.

    Args:
        name: of the argument.
        scale: as given.

    Raises:
        ValueError: for anything else.
    """
    if scale is not None and not math.isfinite(read_number(name, scale)):
        raise ValueError(f"`{name}` is {scale}, but must be a finite number; 1 switches guidance off.")


def check_window(window: Any) -> None:
    """Refuses what is not a window: it is a positive number, `"auto"` or None.

    Raises:
        ValueError: for anything else.
    """
    number = isinstance(window, int) and not isinstance(window, bool) and window >= 1
    if window is not None and window != "auto" and not number:
        raise ValueError(f"`window` is {window!r}, but must be a number of tokens from 1 on, or 'auto'.")


def needs_sync(model: Any) -> bool:
    """Whether other processes must take part in every forward, as transformers decides it."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    several = distributed and torch.distributed.get_world_size() > 1
    return several and (is_deepspeed_zero3_enabled() or is_fsdp_managed_module(model))
