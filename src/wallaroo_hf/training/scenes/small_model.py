"""A small Wallaroo from nothing: the classes of the full one with other numbers, and a tokenizer of its own."""

import copy
import dataclasses
from collections.abc import Iterable
from typing import Any

import torch
from transformers import GenerationConfig, Qwen2Tokenizer

from ...families.vocabulary import KnownWords
from ...layout.special_tokens import (
    IM_END,
    IM_START,
    IMAGE_PAD,
    PAD,
    RELEASED_INDICATOR_SIZES,
    VIDEO_PAD,
    VISION_END,
    VISION_START,
    added_tokens,
    config_token_ids,
)
from ...modeling.configuration import WallarooConfig
from ...modeling.model import WallarooForConditionalGeneration
from ...modeling.vq import WallarooVQModel
from ...processing.image_processor import WallarooImageProcessor
from ...processing.processor import WallarooProcessor
from ..stages import Stage
from .small_tokenizer import learn_tokenizer

# Qwen2.5-VL's special tokens that a chat needs, in its order; Wallaroo's come after them.
CHAT_TOKENS = (PAD, IM_START, IM_END, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD)

# Turns as Qwen2.5-VL's template writes them; written anew for the parts that are used here.
CHAT_TEMPLATE = (
    "{% if not messages or messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for item in message.content %}"
    "{% if item.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif item.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ item.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer(texts: Iterable[str], indicator_sizes: Iterable[int], vocab_size: int) -> Qwen2Tokenizer:
    """A byte-level BPE like Qwen2.5's, learned from texts, with the chat's and Wallaroo's special tokens.

    Args:
        texts: what it shall write well; anything else it writes in bytes.
        indicator_sizes: edges that get an `<indicator:N>` token.
        vocab_size: tokens before the special ones, at most.
    """
    trained = learn_tokenizer(texts, vocab_size, [*CHAT_TOKENS, *added_tokens(indicator_sizes)])
    trained.eos_token, trained.pad_token = IM_END, PAD
    return trained


def new_small_model(
    tokenizer: Any,
    vq_model: WallarooVQModel,
    stage: Stage,
    *,
    prompt_templates: dict[str, dict[str, list[str]]] | None = None,
    hidden_size: int = 192,
    num_hidden_layers: int = 4,
    num_attention_heads: int = 4,
    num_key_value_heads: int = 2,
    intermediate_size: int = 512,
    vision_hidden_size: int = 128,
    vision_depth: int = 3,
    vision_intermediate_size: int = 256,
    patch_size: int = 16,
    seed: int = 0,
    known_words: KnownWords | None = None,
) -> tuple[WallarooForConditionalGeneration, WallarooProcessor]:
    """A model with random weights around a trained image tokenizer, and its processor, at the layout of a stage.

    Args:
        tokenizer: from [`train_tokenizer`].
        vq_model: the image tokenizer; its weights are copied.
        stage: decides buckets, indicators, line breaks and whether the editing parts exist, so it names a layout.
        prompt_templates: task → language → templates; default the released ones.
        patch_size: edge of a NaViT patch in pixels; four of them make one token.
        seed: of the random weights.
        known_words: all that it will learn, see [`WallarooProcessor`].

    Raises:
        ValueError: if the stage names no layout.
    """
    layout = stage.named_layout()
    frequencies = hidden_size // num_attention_heads // 2
    # M-RoPE: in a grid of two to four rows and columns all but the fastest frequencies hardly turn at all, so height and
    # width get those, and time, which a picture does not have, none. Rows of text and codes count as they always do.
    heights = max(1, frequencies // 8)
    ids = config_token_ids(tokenizer.convert_tokens_to_ids, layout.indicators)
    config = WallarooConfig(
        text_config={
            "vocab_size": -(-len(tokenizer) // 64) * 64,
            "hidden_size": hidden_size,
            "intermediate_size": intermediate_size,
            "num_hidden_layers": num_hidden_layers,
            "num_attention_heads": num_attention_heads,
            "num_key_value_heads": num_key_value_heads,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [0, heights, frequencies - heights],
            },
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": vision_depth,
            "hidden_size": vision_hidden_size,
            "intermediate_size": vision_intermediate_size,
            "num_heads": 4,
            "patch_size": patch_size,
            "window_size": 8 * patch_size,
            "fullatt_block_indexes": list(range(vision_depth)),
            "out_hidden_size": hidden_size,
        },
        vq_config=vq_model.config.to_dict(),
        codebook_size=vq_model.config.codebook_size,
        has_editing=layout.has_editing,
        stage=None,
        architectures=[WallarooForConditionalGeneration.__name__],
        **ids,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = WallarooForConditionalGeneration(config)
    model.model.vq_model.load_state_dict(vq_model.state_dict())
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, **layout.generation_settings()
    )
    layout = dataclasses.replace(layout, first_code=config.text_config.vocab_size)
    settings = {"indicator_sizes": stage.indicator_sizes or RELEASED_INDICATOR_SIZES, **layout.processor_settings()}
    settings |= {"prompt_templates": prompt_templates, "known_words": known_words}
    return model.eval(), _new_processor(tokenizer, patch_size, config.vq_config.image_token_size, settings)


def _new_processor(
    tokenizer: Any, patch_size: int, image_token_size: int, settings: dict[str, Any]
) -> WallarooProcessor:
    areas = {"shortest_edge": (2 * patch_size) ** 2, "longest_edge": (8 * patch_size) ** 2}
    return WallarooProcessor(
        WallarooImageProcessor(patch_size=patch_size, size=areas),
        tokenizer,
        chat_template=CHAT_TEMPLATE,
        image_token_size=image_token_size,
        pixel_limits={"editing": areas, "understanding": areas},
        **settings,
    )


def install_image_tokenizer(model: WallarooForConditionalGeneration, vq_model: WallarooVQModel) -> None:
    """Puts a trained image tokenizer into a model, in place of the one it has.

    With another number of codes the heads get new last layers, so do it before the model learns to draw.
    """
    codes, config = vq_model.config.codebook_size, model.config
    vq_config = copy.deepcopy(vq_model.config)
    vq_config.name_or_path = ""  # where it was loaded from is nobody's business
    for part in (config, model.model.config):
        part.vq_config, part.codebook_size = vq_config, codes
    model.model.vq_model = copy.deepcopy(vq_model).to(model.device).requires_grad_(False)
    for task in config.image_tasks:
        head = getattr(model, task.head, None)
        if head is not None and head[2].out_features != codes:
            last = torch.nn.Linear(head[2].in_features, codes, bias=False)
            torch.nn.init.normal_(last.weight, std=config.text_config.initializer_range)
            head[2] = last.to(head[0].weight)


def add_layers(model: WallarooForConditionalGeneration, num_hidden_layers: int) -> None:
    """Makes the language model deeper, in place, without changing what it computes.

    The new layers stand evenly between the old ones. Their output matrices are 0, so each passes on what it gets, until
    training moves them; the rest of each is a copy of the layer before it.

    Args:
        model: a small model, on a CPU or any one device.
        num_hidden_layers: how many it has afterwards.

    Raises:
        ValueError: if that is fewer than it has.
    """
    text = model.model.language_model
    old = list(text.layers)
    if num_hidden_layers < len(old):
        raise ValueError(f"The model has {len(old)} layers, which cannot become {num_hidden_layers}; ask for more.")
    layers: list[torch.nn.Module] = []
    for index, layer in enumerate(old):
        layers.append(layer)
        until = (index + 1) * num_hidden_layers // len(old)
        while len(layers) < until:
            new = copy.deepcopy(layer)
            for matrix in (new.self_attn.o_proj.weight, new.mlp.down_proj.weight):
                torch.nn.init.zeros_(matrix)
            layers.append(new)
    for index, layer in enumerate(layers):
        layer.self_attn.layer_idx = index
    text.layers = torch.nn.ModuleList(layers)
    for config in {id(c): c for c in (model.config.text_config, model.model.config.text_config, text.config)}.values():
        config.num_hidden_layers = num_hidden_layers
        config.layer_types = [config.layer_types[0]] * num_hidden_layers
