"""What the configurations say, against what the classes of diffusers and ours make of them."""

from __future__ import annotations

import pytest

from small_hieraquery import new_hieraquery
from tiny_hieraquery import SD3, tiny_config, tiny_model
from wallaroo_hf.hieraquery.hieraquery_abilities import (
    describe_hieraquery,
    hieraquery_abilities,
    latent_edge,
    listed_sizes,
    query_positions,
)

KL = {
    "_class_name": "AutoencoderKL",
    **{"latent_channels": 4, "block_out_channels": [8, 8, 8], "norm_num_groups": 4},
    **{"down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3},
}
WIDE = {"in_channels": 4, "out_channels": 4, "patch_size": 2}
PUBLISHED = {  # from memory; not compared with the files
    "sana": ({"_class_name": "SanaTransformer2DModel", "patch_size": 1}, {"_class_name": "AutoencoderDC"}, 32),
    "sd3": (
        {"_class_name": "SD3Transformer2DModel", "patch_size": 2, "pos_embed_max_size": 192},
        {"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512]},
        16,
    ),
}


@pytest.mark.parametrize("changes", [{}, {"dit": {**SD3, **WIDE}, "codec": KL}], ids=["pixels", "kl"])
def test_edge_of_a_token(changes):
    config = tiny_config(**changes)
    assert latent_edge(config.to_dict()) == tiny_model(**changes).size_multiple


def test_edge_of_a_token_by_defaults():
    assert latent_edge(tiny_config(codec={"_class_name": "WallarooVQModel"}).to_dict()) == 16 * 4
    for dit, codec, edge in PUBLISHED.values():
        assert latent_edge({"dit": dit, "codec": codec}) == edge


def test_listed_sizes_fit_every_scale():
    """The paper's three scales: at 512 pixels with Sana, multiples of 128; with SD3, of 64."""
    for name, multiple in (("sana", 128), ("sd3", 64)):
        dit, codec, _ = PUBLISHED[name]
        sizes = listed_sizes({"dit": dit, "codec": codec, "size": [512, 512]})
        assert sizes[0] == (512, 512) and len(sizes) >= 3
        assert all(edge % multiple == 0 for size in sizes for edge in size)
        assert all(
            height * width <= 512 * 512 and max(height, width) <= 2 * min(height, width) for height, width in sizes
        )
    thirds = [{"query_grid": [2, 2], "factor": 1 / 3}, {"query_grid": [6, 6], "factor": 1.0}]
    tokens = {"dit": {"patch_size": 1}, "codec": {"_class_name": "WallarooVQModel"}}
    assert listed_sizes({**tokens, "size": [96, 96], "scales": thirds}) == ((96, 96),)


@pytest.mark.parametrize(
    ("groups", "counts", "words"),
    [("coarse_to_fine", [1, 4], "1 + 4 = 5, coarse to fine"), ("fine_to_coarse", [4, 1], "4 + 1 = 5, fine to coarse")],
)
def test_groups_of_queries(groups, counts, words):
    config = tiny_config(query_groups=groups)
    facts, shown = describe_hieraquery(config.to_dict(), {}, {})
    assert facts["queries"] == config.num_queries == counts and words in shown["queries"]
    assert query_positions(config.to_dict()) == 5 + 2 * 2


def test_a_shared_group_of_queries():
    config = tiny_config(query_groups="shared", scales=[{"query_grid": [2, 3], "factor": one} for one in (0.5, 1.0)])
    assert query_positions(config.to_dict()) == 6 + 2 == sum(config.num_queries) + 2
    assert describe_hieraquery(config.to_dict(), {}, {})[0]["queries"] == [6]


def test_what_it_can_do():
    model, processor = new_hieraquery()
    abilities = hieraquery_abilities(model.config.to_dict(), {"image_guidance_scale": 2.0}, processor.to_dict())
    assert abilities.tasks == ("understanding", "text-to-image", "image-editing", "inpainting", "video")
    assert abilities.size_multiple == 4 and abilities.any_size and abilities.progress_unit == "step"
    assert not abilities.negative_prompt and abilities.draws and not abilities.draws_in_chats
    assert abilities.image_positions(32, 32) == (1 + 2) + (4 + 2) and abilities.image_tokens(32, 32) == 64
    assert {one.name: one.default for one in abilities.settings if one.is_offered} == {
        **{"guidance_scale": 2.0, "num_inference_steps": 30, "source_fit": "pad"}
    }
    assert {one.name for one in abilities.settings if not one.is_offered} == {"scheduler", "scales"}
    with pytest.raises(ValueError, match="does not decide by itself when to draw in a chat"):
        abilities.check_drawing_in_chats()
