"""The image tokenizer where a model is spread over processes (FSDP, DeepSpeed): it stays whole, and in float32.

Whatever is sharded is gathered from all processes when it runs, and how often the image tokenizer runs depends on the rows
that a process has: one that runs it more often would wait for the others for ever. And both frameworks would compute it in
bfloat16, which changes codes. So the model keeps it as a plain attribute that neither of them sees.
"""

import dataclasses
from typing import Any

import torch
from accelerate import Accelerator

from ..modeling.backbone import WallarooModel
from ..modeling.model import WallarooForConditionalGeneration
from ..modeling.vq import WallarooVQModel

__all__ = ["adjust_fsdp", "encode_images", "hide_image_tokenizer", "image_tokenizer_weights"]

_NAME = "vq_model"


def adjust_fsdp(accelerator: Accelerator, model: Any) -> None:
    """Adjusts accelerate's FSDP plugin to the model, in place; without FSDP does nothing.

    The image tokenizer is no unit of its own, gradients are summed in float32 over processes, and losses are not rounded to
    the type that the layers compute in (accelerate would do both in bfloat16).

    Args:
        model: a Wallaroo model, with or without PEFT.

    Raises:
        ValueError: for version 1 of FSDP, and for `cpu_ram_efficient_loading`, which would leave the image tokenizer
            empty in all processes but one.
    """
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is None:
        return
    if plugin.fsdp_version != 2:
        raise ValueError(f"FSDP's version is {plugin.fsdp_version}, but only 2 is supported; set `fsdp_version: 2`.")
    if plugin.cpu_ram_efficient_loading:
        raise ValueError(
            "FSDP's `cpu_ram_efficient_loading` is on, but the image tokenizer is needed whole in every process; switch it "
            "off."
        )
    if plugin.transformer_cls_names_to_wrap is None:
        plugin.transformer_cls_names_to_wrap = sorted(set(model._no_split_modules) - {WallarooVQModel.__name__})
    if plugin.mixed_precision_policy is not None:
        plugin.mixed_precision_policy = dataclasses.replace(
            plugin.mixed_precision_policy, reduce_dtype=torch.float32, output_dtype=None
        )


def hide_image_tokenizer(model: WallarooForConditionalGeneration, device: torch.device) -> None:
    """Takes the image tokenizer out of a model's modules, in place; `model.vq_model` goes on working.

    Assigning it (`model.model.vq_model = model.vq_model`) makes it a module again.

    Raises:
        ValueError: if it is sharded already.
    """
    body, tokenizer = model.model, model.vq_model
    if any(hasattr(parameter, "ds_id") for parameter in tokenizer.parameters()):
        raise ValueError(
            "The model was loaded in shards (DeepSpeed ZeRO-3), and its image tokenizer with it, rounded to the type of "
            "the others; load the model before the training arguments are made."
        )
    body._modules.pop(_NAME, None)
    body.__dict__[_NAME] = tokenizer.requires_grad_(False).to(device)


def image_tokenizer_weights(model: WallarooForConditionalGeneration) -> dict[str, torch.Tensor]:
    """The weights of an image tokenizer that is hidden, by their names in a checkpoint."""
    return {f"model.{_NAME}.{name}": tensor.cpu() for name, tensor in model.vq_model.state_dict().items()}


def encode_images(model: WallarooModel, inputs: dict[str, Any]) -> dict[str, Any]:
    """A batch with codes and latents in the place of the pixels that the image tokenizer makes them of.

    Done before the (wrapped) model is called, because FSDP's mixed precision rounds what it is called with.

    Args:
        model: not wrapped.
        inputs: `input_ids`, `labels` and, where there are, `target_pixel_values`, `target_image_tokens`,
            `source_pixel_values` and `source_latents` (see `WallarooForConditionalGeneration.forward`).

    Raises:
        ValueError: if images and their places do not match in number.
    """
    inputs = dict(inputs)
    targets = [inputs.pop(name, None) for name in ("target_pixel_values", "target_image_tokens")]
    sources = inputs.pop("source_pixel_values", None)
    inputs["input_ids"], inputs["labels"] = model.place_targets(inputs["input_ids"], inputs["labels"], *targets)
    if sources is not None or inputs.get("source_latents") is not None:
        inputs["source_latents"] = model.source_latents(sources, inputs.get("source_latents"))
    return inputs
