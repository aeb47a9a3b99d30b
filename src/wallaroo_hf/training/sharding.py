"""What never trains where a model is spread over processes (FSDP, DeepSpeed): it stays whole, and in its own precision.

Whatever is sharded is gathered from all processes when it runs, and how often an image tokenizer runs depends on the rows
that a process has: one that runs it more often would wait for the others for ever. And both frameworks would compute it in
bfloat16, which changes codes. So the model keeps it as a plain attribute that neither of them sees.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

__all__ = ["adjust_fsdp", "frozen_weights", "hide_frozen_parts"]


def adjust_fsdp(accelerator: Accelerator, model: Any, frozen_parts: Sequence[str]) -> None:
    """Adjusts accelerate's FSDP plugin to the model, in place; without FSDP does nothing.

    Frozen parts are no units of their own, gradients are summed in float32 over processes, and losses are not rounded to
    the type that the layers compute in (accelerate would do both in bfloat16).

    Args:
        accelerator: of the trainer.
        model: not wrapped.
        frozen_parts: names of its modules, such as "model.codec".

    Raises:
        ValueError: for version 1 of FSDP, and for `cpu_ram_efficient_loading`, which would leave the frozen parts empty in
            all processes but one.
    """
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is None:
        return
    if plugin.fsdp_version != 2:
        raise ValueError(f"FSDP's version is {plugin.fsdp_version}, but only 2 is supported; set `fsdp_version: 2`.")
    if plugin.cpu_ram_efficient_loading and frozen_parts:
        raise ValueError(
            "FSDP's `cpu_ram_efficient_loading` is on, but the image tokenizer is needed whole in every process; switch it "
            "off."
        )
    if plugin.transformer_cls_names_to_wrap is None:
        hidden = tuple(f"{name}." for name in frozen_parts)
        others = {type(one).__name__ for name, one in model.named_modules() if not f"{name}.".startswith(hidden)}
        plugin.transformer_cls_names_to_wrap = sorted(others & set(model._no_split_modules or ()))
    if plugin.mixed_precision_policy is not None:
        plugin.mixed_precision_policy = dataclasses.replace(
            plugin.mixed_precision_policy, reduce_dtype=torch.float32, output_dtype=None
        )


def hide_frozen_parts(model: nn.Module, frozen_parts: Sequence[str], device: torch.device) -> None:
    """Takes frozen parts out of a model's modules, in place; as attributes they go on working.

    Assigning one to its own name makes it a module again.

    Args:
        model: not wrapped.
        frozen_parts: names of its modules.
        device: where they compute.

    Raises:
        ValueError: if one is sharded already.
    """
    for name in frozen_parts:
        part = _part(model, name)
        if any(hasattr(parameter, "ds_id") for parameter in part.parameters()):
            raise ValueError(
                "The model was loaded in shards (DeepSpeed ZeRO-3), and its image tokenizer with it, rounded to the type "
                "of the others; load the model before the training arguments are made."
            )
        owner, _, attribute = name.rpartition(".")
        holder = model.get_submodule(owner)
        holder._modules.pop(attribute, None)
        holder.__dict__[attribute] = part.requires_grad_(False).to(device)


def frozen_weights(model: nn.Module, frozen_parts: Sequence[str]) -> dict[str, torch.Tensor]:
    """The weights of frozen parts that are hidden, by their names in a checkpoint."""
    return {
        f"{part}.{name}": tensor.cpu()
        for part in frozen_parts
        for name, tensor in _part(model, part).state_dict().items()
    }


def _part(model: nn.Module, name: str) -> nn.Module:
    """A module by its name, hidden or not."""
    owner, _, attribute = name.rpartition(".")
    return getattr(model.get_submodule(owner), attribute)
