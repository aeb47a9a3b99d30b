"""A sketch of a third image task, with an opening token, an adapter and a head of its own: what it costs, kept as tests.

It is no feature: nothing is trained to do it. What it would take beside what stands here is in CONTRIBUTING.
"""

import copy
from dataclasses import replace

import torch
from huggingface_hub.dataclasses import strict
from transformers import AddedToken

from wallaroo_hf import WallarooConfig, WallarooForConditionalGeneration, WallarooProcessor
from wallaroo_hf.layout.prompt_texts import START_TOKENS
from wallaroo_hf.modeling.parts import IMAGE_TASKS, ImageTask

INPAINT_START = "<|inpaint_start|>"
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
    inpaint_start_token_id: int | None = None


class InpaintingModel(WallarooForConditionalGeneration):
    """The model: its table is its configuration's."""

    config: InpaintingConfig


class InpaintingProcessor(WallarooProcessor):
    """The processor: a request to fill is an inpainting; its opening token is one that the tokenizer was given."""

    start_tokens = {**START_TOKENS, "inpainting": INPAINT_START}

    def _draw(self, requests, *args):
        fills = [request.source is not None and request.prompt.startswith("fill") for request in requests]
        tasks = ["inpainting" if fill else None for fill in fills]
        return super()._draw([replace(one, task=task) for one, task in zip(requests, tasks, strict=True)], *args)


def with_inpainting(
    model: WallarooForConditionalGeneration, processor: WallarooProcessor, has_inpainting: bool = True
) -> tuple[InpaintingModel, InpaintingProcessor]:
    """Model and processor with weights and settings of others, and new inpainting parts."""
    theirs = copy.deepcopy(processor)
    theirs.__class__ = InpaintingProcessor
    theirs.tokenizer.add_tokens([AddedToken(INPAINT_START, special=True, normalized=False)], special_tokens=True)
    theirs.prompt_templates["inpainting"] = {"en": ["{prompt}: {target_w}x{target_h}"]}
    settings = model.config.to_dict()
    settings = {
        name: value for name, value in settings.items() if name not in ("model_type", "architectures", "dtype")
    }
    opening = theirs.tokenizer.convert_tokens_to_ids(INPAINT_START)
    assert opening < model.config.text_config.vocab_size
    config = InpaintingConfig(**settings, has_inpainting=has_inpainting, inpaint_start_token_id=opening)
    torch.manual_seed(0)
    inpainting = InpaintingModel(config).eval()
    missing = set(inpainting.state_dict()) - set(model.state_dict())
    assert all("inpaint" in name for name in missing)
    inpainting.load_state_dict({**inpainting.state_dict(), **model.state_dict()})
    inpainting.generation_config = model.generation_config
    return inpainting, theirs
