"""The configuration of HieraQuery."""

import pytest

from wallaroo_hf.hieraquery import HieraQueryConfig


def test_defaults_are_the_papers_and_survive_saving(tmp_path):
    config = HieraQueryConfig()
    assert config.num_queries == [16, 64, 256]
    assert config.connector_config.is_causal is False
    HieraQueryConfig(scales=[{"query_grid": (2, 3), "factor": 1}]).save_pretrained(tmp_path)
    loaded = HieraQueryConfig.from_pretrained(tmp_path)
    assert loaded.scales == [{"query_grid": [2, 3], "factor": 1.0, "loss_weight": 1.0}]
    assert loaded.connector_config.is_causal is False


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scales": []}, "`scales` is empty"),
        ({"scales": [{"query_grid": [2, 2], "factor": 0.5}]}, "from coarse to fine, the last of 1.0"),
        ({"scales": [{"query_grid": [2], "factor": 1}]}, "must be two numbers"),
        ({"scales": [{"grid": [2, 2], "factor": 1}]}, "Scale 0 is .*give `query_grid`"),
        ({"condition": "mine"}, "must be one of own, prefix, all"),
        ({"query_positions": "rows"}, "must be one of text, grid"),
        ({"query_groups": "one"}, "must be one of coarse_to_fine, fine_to_coarse, shared"),
        ({"query_groups": "shared"}, r"the grids \[\[4, 4\], \[8, 8\], \[16, 16\]\]; give all of them one"),
        ({"condition_dropout": 2}, "from 0 to 1"),
        ({"allignment_weight": 1}, "did you mean `alignment_weight`"),
    ],
)
def test_contradictions_are_one_sentence(settings, message):
    with pytest.raises(ValueError, match=message):
        HieraQueryConfig(**settings)
