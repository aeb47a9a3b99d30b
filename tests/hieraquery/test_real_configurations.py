"""Models of published sizes on the meta device: parts fit, and every tensor is accounted for.

The configurations are as remembered; they were not checked against the published files.
"""

from __future__ import annotations

import math

import pytest
import torch

from wallaroo_hf.families.loading import stored_shapes
from wallaroo_hf.hieraquery import HieraQueryConfig, HieraQueryForConditionalGeneration
from wallaroo_hf.hieraquery.hieraquery_abilities import PARTS, hieraquery_abilities

SD3_MEDIUM = {
    "_class_name": "SD3Transformer2DModel",
    **{"sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 24},
    **{"attention_head_dim": 64, "num_attention_heads": 24, "joint_attention_dim": 4096},
    **{"caption_projection_dim": 1536, "pooled_projection_dim": 2048, "pos_embed_max_size": 192},
}
SD3_CODEC = {
    "_class_name": "AutoencoderKL",
    **{"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 16},
    **{"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4},
    **{"scaling_factor": 1.5305, "shift_factor": 0.0609, "use_quant_conv": False, "use_post_quant_conv": False},
}
SANA = {
    "_class_name": "SanaTransformer2DModel",
    **{"in_channels": 32, "out_channels": 32, "num_layers": 20, "num_attention_heads": 70, "attention_head_dim": 32},
    **{"num_cross_attention_heads": 20, "cross_attention_head_dim": 112, "cross_attention_dim": 2240},
    **{"caption_channels": 2304, "mlp_ratio": 2.5, "patch_size": 1, "sample_size": 16},
}
QWEN_3B = {
    "tie_word_embeddings": True,
    "text_config": {
        **{"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "vocab_size": 151936},
        **{"num_attention_heads": 16, "num_key_value_heads": 2},
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    },
    "vision_config": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 2048},
}
QWEN_HALF_B = {
    **{"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "vocab_size": 1},
    **{"num_attention_heads": 14, "num_key_value_heads": 2, "pad_token_id": None},
}


def model_of(dit, codec, **changes):
    parts = {"mllm_config": QWEN_3B, "connector_config": QWEN_HALF_B, "dit": dit, "codec": codec}
    with torch.device("meta"):
        return HieraQueryForConditionalGeneration(HieraQueryConfig(**parts, **changes))


@pytest.mark.parametrize(
    ("dit", "codec", "grids", "billions"),
    [
        (SD3_MEDIUM, SD3_CODEC, [8, 16, 32], 2.03),
        (SANA, {"_class_name": "AutoencoderDC"}, [4, 8, 16], 1.60),
        ({**SANA, "sample_size": 32}, {"_class_name": "AutoencoderDC"}, [4, 8, 16], 1.60),
    ],
    ids=["sd3", "sana-512", "sana-1024"],
)
def test_published_sizes(dit, codec, grids, billions):
    model = model_of(dit, codec)
    adapter, config = model.dit_adapter, model.config
    assert config.num_queries == [16, 64, 256] and sum(config.num_queries) == 336
    sizes = [model.scale_size(512, 512, scale) for scale in range(3)]
    assert sizes == [(128, 128), (256, 256), (512, 512)]
    assert [height // model.size_multiple for height, _ in sizes] == grids  # tokens of the diffusion transformer
    abilities = hieraquery_abilities(config.to_dict(), {}, {})
    abilities.check_size(512, 512)
    assert (abilities.size_multiple, abilities.query_positions) == (model.size_multiple, 336 + 6)
    tensors = {name: math.prod(shape) for name, shape in stored_shapes(model).items()}
    tensors.pop("mllm.lm_head.weight")  # the table of words
    counts = dict.fromkeys(PARTS, 0)
    for name, count in tensors.items():
        owners = [part for part, beginnings in PARTS.items() if name.startswith(beginnings)]
        assert len(owners) == 1, name
        counts[owners[0]] += count
    assert sum(counts.values()) == sum(tensors.values()) and all(counts.values())
    assert counts["diffusion transformer"] / 1e9 == pytest.approx(billions, abs=0.02 if dit is not SD3_MEDIUM else 0.1)
    assert counts["queries"] == (336 + 6) * 2048
    width, outer = config.alignment_width, 2048
    head = (adapter.hidden_size + 1) * width + (width + 1) * width + (width + 1) * outer
    assert counts["alignment head"] == head
    assert (counts["language model"] + counts["vision encoder"]) / 1e9 == pytest.approx(3.75, abs=0.05)
    assert counts["connector"] / 1e9 == pytest.approx(0.37, abs=0.02)


def test_all_but_language_model_and_codec_trains():
    model = model_of(SANA, {"_class_name": "AutoencoderDC"})
    trained = {name.partition(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    frozen = {name.partition(".")[0] for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert trained == {"queries", "connector", "dit", "alignment"} and frozen == {"mllm", "codec"}


@pytest.mark.parametrize("size", [(512, 512), (256, 1024), (768, 384)])
def test_listed_aspects_fit_every_scale(size):
    model = model_of(SD3_MEDIUM, SD3_CODEC)
    for scale, factor in enumerate((0.25, 0.5, 1.0)):
        assert model.scale_size(*size, scale) == tuple(round(edge * factor) for edge in size)
    longest = 192 * 16
    with pytest.raises(ValueError, match=f"edges up to {longest} pixels"):
        hieraquery_abilities(model.config.to_dict(), {}, {}).check_size(longest + 16, 512)
    for height, width in hieraquery_abilities(model.config.to_dict(), {}, {}).sizes:
        assert all(math.prod(model.scale_size(height, width, scale)) for scale in range(3))
