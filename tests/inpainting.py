"""A sketch of a third image task, with an opening token, an adapter and a head of its own: what it costs, kept as tests.

It is no feature: nothing is trained to do it. What it would take beside what stands here is in CONTRIBUTING.
"""

from typing import Any

import torch
from huggingface_hub.dataclasses import strict

from wallaroo_hf import WallarooConfig, WallarooForConditionalGeneration
from wallaroo_hf.modeling.parts import IMAGE_TASKS, ImageTask

INPAINTING = ImageTask(
    "inpainting",
    "inpaint_start_token_id",
    "inpaint_adapter",
    "inpaint_head",
    switch="has_inpainting",
    other_adapters=("source_adapter",),
    lacking="This checkpoint has no inpainting parts; load one that has.",
)


@strict
class InpaintingConfig(WallarooConfig):
    """The configuration with one more entry in the table, and the two settings that it names."""

    model_type = "wallaroo_inpainting"
    image_tasks = (*IMAGE_TASKS, INPAINTING)

    has_inpainting: bool = True
    inpaint_start_token_id: int = 151683


class InpaintingModel(WallarooForConditionalGeneration):
    """The model: its table is its configuration's."""

    config: InpaintingConfig


def with_inpainting(model: WallarooForConditionalGeneration, has_inpainting: bool = True) -> InpaintingModel:
    """A model with the weights of another, and new inpainting parts; the embedding table's last row opens its images."""
    settings = model.config.to_dict()
    settings = {
        name: value for name, value in settings.items() if name not in ("model_type", "architectures", "dtype")
    }
    opening = model.config.text_config.vocab_size - 1
    config = InpaintingConfig(**settings, has_inpainting=has_inpainting, inpaint_start_token_id=opening)
    torch.manual_seed(0)
    inpainting = InpaintingModel(config).eval()
    missing = set(inpainting.state_dict()) - set(model.state_dict())
    assert all("inpaint" in name for name in missing)
    inpainting.load_state_dict({**inpainting.state_dict(), **model.state_dict()})
    inpainting.generation_config = model.generation_config
    return inpainting


def as_inpainting(inputs: Any, config: InpaintingConfig, rows: list[int]) -> dict[str, Any]:
    """The processor's tensors, but the image of these rows is opened by inpainting's token."""
    changed = dict(inputs)
    for name in [name for name in inputs if name.endswith("input_ids") or name == "labels"]:
        changed[name] = inputs[name].clone()
        mine = changed[name][rows]
        changed[name][rows] = torch.where(mine == config.generate_start_token_id, config.inpaint_start_token_id, mine)
    return changed
