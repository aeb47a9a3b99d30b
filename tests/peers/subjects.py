"""What is checked: models with batches and prompts of theirs."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from golden import GoldenSet
from helpers import picture

SIZE = {"height": 32, "width": 32}
_IDS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


@dataclasses.dataclass
class Subject:
    """A model and what it is given.

    Attributes:
        model: shared; [`fresh`] copies it.
        batch: arguments of `forward`, two rows of different lengths, padded on the left.
        single: the first row alone, without padding.
        training: arguments of `forward` that give a loss.
        read: what `forward` says, `(B, T, ...)`.
        prompt, single_prompt: arguments of `generate`.
        settings: further ones, which make it greedy and short.
    """

    model: Any
    batch: dict[str, Any]
    single: dict[str, Any]
    training: dict[str, Any]
    read: Callable[[Any], torch.Tensor] = lambda outputs: outputs.logits
    prompt: dict[str, Any] = dataclasses.field(default_factory=dict)
    single_prompt: dict[str, Any] = dataclasses.field(default_factory=dict)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def fresh(self) -> Any:
        """A copy of the model, in eval mode."""
        return copy.deepcopy(self.model)

    @torch.no_grad()
    def scores(self, model: Any, batch: Mapping[str, Any] | None = None, **more: Any) -> torch.Tensor:
        """What a model says to the batch."""
        return self.read(model(**(self.batch if batch is None else batch), **more))

    def generate(self, model: Any, prompt: Mapping[str, Any] | None = None, **more: Any) -> Any:
        """What it makes of the prompt: ids, or what `more` asks for."""
        return model.generate(**(self.prompt if prompt is None else prompt), **{**self.settings, **more})


def stock_model(ours: Any) -> Qwen2_5_VLForConditionalGeneration:
    """Qwen2.5-VL with the weights that it shares with one of our models, which it answers like."""
    config = ours.config
    parts = {"text_config": config.text_config.to_dict(), "vision_config": config.vision_config.to_dict()}
    stock = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(**parts, **{name: getattr(config, name) for name in _IDS})
    )
    names = stock.state_dict().keys()
    stock.load_state_dict({name: tensor for name, tensor in ours.state_dict().items() if name in names})
    stock.generation_config = copy.deepcopy(ours.generation_config)
    stock.generation_config.suppress_tokens = sorted(config.drawing_token_ids)
    return stock.eval()


def text_subject(golden: GoldenSet, model: Any) -> Subject:
    """Rows of text."""
    prompts = ["hi", "tell me more about the grey road"]
    return _answering(golden, model, [_chat(golden, prompt) for prompt in prompts], [])


def question_subject(golden: GoldenSet, model: Any) -> Subject:
    """Rows with an image each."""
    prompts = ["what?", "tell me more about this"]
    images = [picture(1, 64, 64), picture(2, 96, 64)]
    return _answering(golden, model, [_chat(golden, prompt, shown=True) for prompt in prompts], images)


def drawing_subject(golden: GoldenSet, edit: bool = False) -> Subject:
    """Rows that draw, or that edit."""
    prompts, sources = ["red", "a blue star on a grey road"], [picture(3, 64, 64), picture(4, 96, 64)]
    common = {"generation_mode": "image", "return_tensors": "pt", **SIZE}

    def prepare(rows: int, **more: Any) -> dict[str, Any]:
        images = {"images": sources[:rows]} if edit else {}
        return dict(golden.processor(text=prompts[:rows], **images, **common, **more))

    def learn(rows: int, **more: Any) -> dict[str, Any]:
        return prepare(rows, target_images=[picture(5, 64, 64), picture(6, 64, 64)][:rows], **more)

    return Subject(
        model=golden.model,
        batch=learn(2) | {"output_image_logits": True},
        single=learn(1) | {"output_image_logits": True},
        training=learn(2, return_labels=True),
        read=lambda outputs: outputs.image_logits,
        prompt=prepare(2),
        single_prompt=prepare(1),
        settings={"generation_mode": "image", "do_sample": False},
    )


def _chat(golden: GoldenSet, prompt: str, shown: bool = False) -> str:
    image = [{"type": "image"}] if shown else []
    message = {"role": "user", "content": [*image, {"type": "text", "text": prompt}]}
    return golden.processor.apply_chat_template([message], add_generation_prompt=True)


def _answering(golden: GoldenSet, model: Any, texts: list[str], images: list[Any]) -> Subject:
    def prepare(rows: int) -> dict[str, Any]:
        return dict(golden.processor(text=texts[:rows], images=images[:rows] or None, return_tensors="pt"))

    batch = prepare(2)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    return Subject(
        model=model,
        batch=batch,
        single=prepare(1),
        training=batch | {"labels": labels},
        prompt=batch,
        single_prompt=prepare(1),
        settings={"do_sample": False, "max_new_tokens": 4, "min_new_tokens": 4},
    )
