"""Calls of the processor."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from wallaroo_hf.layout.special_tokens import IMAGE_PAD

from .kind import Kind, attempt
from .made_up import BLOCK, ROLES, some_image, some_ratio, some_side, some_words


class Inputs(Kind):
    """Texts, pictures, sizes and options of the processor."""

    def round(self, rng: random.Random) -> None:
        """Calls of the processor: what is accepted has the placeholders of its images and no token of its words."""
        mode = rng.choice(("text", "image", "image", "auto", "auto"))
        texts = [_prompt(rng, mode) for _ in range(rng.choice((1, 1, 2)))]
        arguments = _arguments(rng, mode, texts)
        batch = attempt(self.processor, text=texts[0] if len(texts) == 1 else texts, **arguments)
        ids = [torch.as_tensor(row) for row in batch["input_ids"]]
        assert len(ids) == len(texts) and {len(row) for row in ids} == {len(row) for row in batch["attention_mask"]}
        seen = sum(int(torch.as_tensor(np.asarray(row)).sum()) for row in batch["mm_token_type_ids"])
        areas = np.asarray(batch["image_grid_thw"]).prod(axis=-1) // 4 if "image_grid_thw" in batch else np.zeros(0)
        if mode == "text":  # whoever renders a chat may put placeholders outside of blocks, which the model refuses
            return
        assert seen == areas.sum(), (seen, areas)
        image = self.processor.tokenizer.convert_tokens_to_ids(IMAGE_PAD)
        sources = batch.get("source_pixel_values", [])
        codes = sum(np.asarray(source).shape[-2] * np.asarray(source).shape[-1] // 256 for source in sources)
        assert sum(int((row == image).sum()) for row in ids) == seen + codes
        learn = self.processor.tokenizer.convert_tokens_to_ids("<|generate_image_pad|>")
        learned = sum(int((row == learn).sum()) for row in ids)
        drawn = [np.asarray(target) for target in batch.get("target_pixel_values", [])]
        encoded = [np.asarray(target) for target in batch.get("target_image_tokens", []) if target is not None]
        num_codes = sum(target.shape[-2] * target.shape[-1] // 256 for target in drawn)
        assert learned == num_codes + sum(target.size for target in encoded)


def _maybe_list(rng: random.Random, make: Callable[[random.Random], Any], count: int) -> Any:
    return (
        make(rng)
        if rng.random() < 0.6
        else [make(rng) for _ in range(count if rng.random() < 0.9 else rng.randint(0, 3))]
    )


def _arguments(rng: random.Random, mode: str, texts: list[str]) -> dict[str, Any]:
    """Arguments of the processor, of which most fit."""
    count = len(texts)
    given: dict[str, Any] = {"generation_mode": mode if rng.random() < 0.98 else some_words(rng)}
    if rng.random() < 0.8 and mode != "text":
        given |= {"height": _maybe_list(rng, some_side, count), "width": _maybe_list(rng, some_side, count)}
    shown = sum(text.count(IMAGE_PAD) for text in texts)
    if mode == "image" and rng.random() < 0.4:
        given["images"] = _maybe_list(rng, some_image, count)
    elif shown and rng.random() < 0.9:
        given["images"] = [some_image(rng) for _ in range(shown)]
    rare: dict[str, Callable[[], Any]] = {
        "aspect_ratio": lambda: _maybe_list(rng, some_ratio, count),
        "negative_prompt": lambda: _maybe_list(rng, some_words, count),
        "prompt_template": lambda: rng.choice(
            (1, 99, -1, "{prompt}", some_words(rng), f"{{prompt}}{some_words(rng)}")
        ),
        "layout": lambda: rng.choice(("trained", "published_eval", "other")),
        "source_guidance": lambda: True,
        "source_fit": lambda: rng.choice(("crop", "pad", "fill")),
        "padding_side": lambda: rng.choice(("left", "right")),
        "padding": lambda: rng.choice((True, False, "longest", "max_length")),
        "max_length": lambda: rng.choice((1, 50, 4096)),
        "pad_to_multiple_of": lambda: rng.choice((1, 8)),
        "return_tensors": lambda: rng.choice(("pt", "np", None)),
    }
    given |= {name: make() for name, make in rare.items() if rng.random() < 0.07}
    if rng.random() < 0.15 and mode != "text":
        given["target_images"] = [some_image(rng) for _ in texts] if mode == "image" else [[] for _ in texts]
        given["return_labels"] = rng.random() < 0.8
    return given


def _prompt(rng: random.Random, mode: str) -> str:
    """Plain words, or a rendered chat; whoever renders it in text mode may write anything."""
    if mode == "image" and rng.random() < 0.7:
        return some_words(rng)
    block = BLOCK if rng.random() < 0.3 else ""
    turns = [f"<|im_start|>{rng.choice(ROLES[:3])}\n{some_words(rng)}<|im_end|>\n" for _ in range(rng.randint(0, 2))]
    return (
        "".join(turns)
        + f"<|im_start|>user\n{block}{some_words(rng)}<|im_end|>\n"
        + "<|im_start|>assistant\n" * rng.randint(0, 1)
    )
