"""A HieraQuery of a few thousand weights over pixels, with its processor and a tokenizer of a few words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tiny_hieraquery import MLLM, tiny_config
from wallaroo_hf.common.chat_form import IM_END, IM_START, IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START
from wallaroo_hf.hieraquery import HieraQueryForConditionalGeneration, HieraQueryImageProcessor, HieraQueryProcessor
from wallaroo_hf.training.scenes.small_model import CHAT_TEMPLATE
from wallaroo_hf.training.scenes.small_tokenizer import learn_tokenizer

END_OF_TEXT = "<|endoftext|>"
_TOKENS = (END_OF_TEXT, IM_START, IM_END, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD)
_WORDS = ["a red square above a blue circle", "what colour is it?", "make it green", "blue", "system user assistant"]


def small_tokenizer() -> Any:
    """As Qwen2.5-VL's, with fewer words."""
    tokenizer = learn_tokenizer(_WORDS * 3, 300, _TOKENS)
    tokenizer.eos_token, tokenizer.pad_token = IM_END, END_OF_TEXT
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def small_config(tokenizer: Any, positions: int = 1024, **changes: Any) -> Any:
    """The tiny configuration with this tokenizer's ids.

    Args:
        tokenizer: of the language model.
        positions: of the language model.
        changes: of the configuration.
    """
    ids = dict(zip(_TOKENS, tokenizer.convert_tokens_to_ids(list(_TOKENS)), strict=True))
    text = {
        **MLLM["text_config"],
        **{"vocab_size": len(tokenizer), "max_position_embeddings": positions},
        **{"pad_token_id": ids[END_OF_TEXT], "bos_token_id": ids[END_OF_TEXT], "eos_token_id": ids[IM_END]},
    }
    mllm = {
        **MLLM,
        "text_config": text,
        **{"image_token_id": ids[IMAGE_PAD], "video_token_id": ids[VIDEO_PAD]},
        **{"vision_start_token_id": ids[VISION_START], "vision_end_token_id": ids[VISION_END]},
    }
    return tiny_config(**{"size": [32, 32], "mllm_config": {**mllm, "tie_word_embeddings": True}, **changes})


def new_hieraquery(seed: int = 0, **changes: Any) -> tuple[Any, Any]:
    """Model and processor; weights are large enough that words and pictures matter.

    Args:
        seed: of the weights.
        changes: of the configuration.
    """
    tokenizer = small_tokenizer()
    config = small_config(tokenizer, **changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = HieraQueryForConditionalGeneration(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1 and not name.startswith("codec."):
                    torch.nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
    image_processor = HieraQueryImageProcessor(
        patch_size=MLLM["vision_config"]["patch_size"], size={"shortest_edge": 64, "longest_edge": 1024}
    )
    return model, HieraQueryProcessor.of_config(config, image_processor, tokenizer)


def save_hieraquery(folder: Path, **changes: Any) -> Path:
    """A checkpoint's folder.

    Args:
        folder: to write.
        changes: of the configuration.
    """
    model, processor = new_hieraquery(**changes)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def picture(colour: Any = (200, 40, 40), size: tuple[int, int] = (32, 32)) -> Image.Image:
    """A picture with some structure, `size` as `(width, height)`."""
    image = Image.new("RGB", size, colour)
    image.paste((20, 90, 220), (size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2))
    return image
