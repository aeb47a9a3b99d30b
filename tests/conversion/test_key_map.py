"""The key map against the key lists of the released 7B checkpoint and image tokenizer, names and shapes."""

import itertools
import json
import os
import re
from pathlib import Path

import pytest
import torch

from wallaroo_hf import WallarooConfig, WallarooForConditionalGeneration, WallarooVQConfig, WallarooVQModel
from wallaroo_hf.conversion.converter import vq_config_from_tensors
from wallaroo_hf.conversion.key_map import EDITING_PREFIXES, VQ_IGNORED, checkpoint_key, vq_key

RELEASED = json.loads((Path(__file__).parent / "assets" / "released_keys.json").read_text(encoding="utf-8"))
REFERENCE = Path(os.environ.get("WALLAROO_REFERENCE", Path(__file__).resolve().parents[3] / "shared" / "reference"))
EDITING = ("pixel_adapter.", "edit_input_adpater.", "edit_image_head.")
# Numbers of the published Qwen2.5-VL-7B-Instruct.
QWEN_7B = {
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18944,
    "vocab_size": 152064,
    "vision_config": {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
        "fullatt_block_indexes": [7, 15, 23, 31],
    },
}
VQ_16 = {
    "codebook_size": 16384,
    "embed_dim": 8,
    "base_channels": 128,
    "channel_multiplier": [1, 1, 2, 2, 4],
    "latent_channels": 256,
    "num_res_blocks": 2,
}


def expand(patterns):
    """`layers.{0-27}.x` and `y.{0,2}.z` to one key per number."""
    keys = {}
    for pattern, shape in patterns.items():
        choices = []
        for index, piece in enumerate(re.split(r"\{([\d,-]+)\}", pattern)):
            first, dash, last = piece.partition("-")
            if index % 2 == 0:
                choices.append([piece])
            else:
                choices.append([str(n) for n in range(int(first), int(last) + 1)] if dash else piece.split(","))
        keys |= {"".join(choice): shape for choice in itertools.product(*choices)}
    return keys


def released_keys(has_editing=True):
    keys = expand(RELEASED["checkpoint"])
    return {key: shape for key, shape in keys.items() if has_editing or not key.startswith(EDITING)}


def shapes(model):
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the full key lists are not here")
def test_stand_in_equals_the_full_lists():
    """The compressed lists of this folder say what the recorded ones say."""

    def recorded(name):
        return json.loads((REFERENCE / "keys" / f"{name}.json").read_text(encoding="utf-8"))

    assert released_keys() == recorded("real_7b_checkpoint_keys")
    assert released_keys(has_editing=False) == recorded("real_7b_stage1_to_3_checkpoint_keys")
    assert expand(RELEASED["vq"]) == recorded("real_vq_keys")


@pytest.mark.parametrize("has_editing", [True, False], ids=["stage 4", "stages 1-3"])
def test_released_checkpoint_fills_the_7b_model(has_editing):
    """Every released key has a place and every place a key, at the 7B model's names and shapes."""
    config = WallarooConfig(**QWEN_7B, vq_config=VQ_16, has_editing=has_editing)
    with torch.device("meta"):
        expected = shapes(WallarooForConditionalGeneration(config))
    released = released_keys(has_editing)
    mapped = {checkpoint_key(key): shape for key, shape in released.items()}
    assert len(mapped) == len(released) == (747 if has_editing else 736)
    mapped |= {
        f"model.vq_model.{vq_key(key)}": shape
        for key, shape in expand(RELEASED["vq"]).items()
        if key not in VQ_IGNORED
    }
    assert mapped == expected


def test_released_vq_fills_the_vq_model():
    released = {key: shape for key, shape in expand(RELEASED["vq"]).items() if key not in VQ_IGNORED}
    assert len(released) == 343
    with torch.device("meta"):
        expected = shapes(WallarooVQModel(WallarooVQConfig(**VQ_16)))
    assert {vq_key(key): shape for key, shape in released.items()} == expected


def test_sizes_are_read_from_the_released_vq():
    tensors = {key: torch.empty(shape, device="meta") for key, shape in expand(RELEASED["vq"]).items()}
    config = vq_config_from_tensors(tensors)
    assert {key: getattr(config, key) for key in VQ_16} == VQ_16
    assert (config.in_channels, config.out_channels, config.image_token_size) == (3, 3, 16)


def test_editing_prefixes_are_the_released_ones():
    assert sorted(EDITING_PREFIXES) == sorted(EDITING)


@pytest.mark.parametrize("key", ["", "wallaroo", "model.norm.weight", "xwallaroo.model.norm.weight", "optimizer.0"])
def test_unknown_checkpoint_keys_have_no_name(key):
    assert checkpoint_key(key) is None


@pytest.mark.parametrize("key", ["", "loss.discriminator.0.weight", "quantize.codebook_used", "xencoder.conv_in.bias"])
def test_unknown_vq_keys_have_no_name(key):
    assert vq_key(key) is None


@pytest.mark.parametrize(
    ("released", "ours"),
    [
        ("wallaroo.model.layers.3.mlp.up_proj.weight", "model.language_model.layers.3.mlp.up_proj.weight"),
        ("wallaroo.visual.merger.ln_q.weight", "model.visual.merger.ln_q.weight"),
        ("wallaroo.lm_head.weight", "lm_head.weight"),
        ("gen_input_adpater.0.bias", "model.generation_adapter.0.bias"),
        ("pixel_adapter.2.weight", "model.source_adapter.2.weight"),
        ("edit_input_adpater.2.weight", "model.edit_adapter.2.weight"),
        ("gen_image_head.2.weight", "generation_head.2.weight"),
        ("edit_image_head.0.weight", "edit_head.0.weight"),
    ],
)
def test_each_part_goes_where_it_belongs(released, ours):
    """Adapters and heads have equal shapes, so only names tell them apart."""
    assert checkpoint_key(released) == ours


@pytest.mark.parametrize(
    ("released", "ours"),
    [
        ("encoder.conv_blocks.4.res.1.conv2.bias", "encoder.down.4.block.1.conv2.bias"),
        ("decoder.conv_blocks.0.attn.2.q.weight", "decoder.up.0.attn.2.q.weight"),
        ("decoder.conv_blocks.3.upsample.conv.bias", "decoder.up.3.upsample.conv.bias"),
        ("encoder.mid.0.conv1.weight", "encoder.mid.block_1.conv1.weight"),
        ("decoder.mid.1.k.weight", "decoder.mid.attn_1.k.weight"),
        ("decoder.mid.2.norm1.weight", "decoder.mid.block_2.norm1.weight"),
        ("quantize.embedding.weight", "quantize.embedding.weight"),
    ],
)
def test_vq_blocks_go_where_they_belong(released, ours):
    assert vq_key(released) == ours
