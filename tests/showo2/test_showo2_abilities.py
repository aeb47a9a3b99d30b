"""What a checkpoint of Show-o2 can do, from its json files alone."""

import json
import os
import subprocess
import sys

import pytest

from wallaroo_hf.families.settings import UnknownSettingError
from wallaroo_hf.showo2 import ShowO2Config
from wallaroo_hf.showo2.showo2_abilities import describe_showo2, showo2_abilities
from wallaroo_hf.showo2.showo2_recipes import RECIPES


def _saved(tmp_path, **settings):
    ShowO2Config(**settings).save_pretrained(tmp_path)
    return json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))


def test_the_released_models(tmp_path):
    abilities = showo2_abilities(_saved(tmp_path), {}, {})
    assert (abilities.family, abilities.tasks) == ("Show-o2", ("understanding", "text-to-image", "video"))
    assert abilities.sizes == ((432, 432), (512, 512), (1024, 1024))
    assert (abilities.size_multiple, abilities.any_size, abilities.max_positions) == (16, True, 32768)
    assert abilities.negative_prompt and abilities.progress_unit == "step"
    assert {setting.name: setting.default for setting in abilities.settings} == {
        "guidance_scale": 5.0,
        "num_inference_steps": 49,
        "published_eval": False,
        "scheduler": None,
    }
    assert {size: abilities.image_tokens(*size) for size in abilities.sizes} == {
        (432, 432): 729,
        (512, 512): 1024,
        (1024, 1024): 4096,
    }
    assert abilities.image_positions(432, 432) == 729 + 3
    assert abilities.pick_size(aspect_ratio="1:1") == (432, 432)


def test_an_empty_configuration_says_what_the_default_one_says(tmp_path):
    assert showo2_abilities({}, {}, {}) == showo2_abilities(_saved(tmp_path), {}, {})


def test_another_checkpoint(tmp_path):
    config = _saved(
        tmp_path,
        tasks=["understanding", "text-to-image", "image-editing"],
        drawing_sizes=[[96, 96], [64, 128]],
        codec_config={"type": "linear", "channels": 16, "patch": 8},
        text_config={"max_position_embeddings": 100},
        patch_size=1,
        stage="2c",
    )
    generation = {
        "image_guidance_scale": 2.5,
        "image_num_inference_steps": 20,
        "sensible_ranges": {"guidance_scale": [2, 3]},
    }
    abilities = showo2_abilities(
        config, generation, {"languages": ["en"], "known_words": {"en": {"colours": ["red"]}}}
    )
    assert abilities.edits and abilities.size_multiple == 8 and abilities.languages == ("en",)
    assert abilities.setting("guidance_scale").default == 2.5 and abilities.setting("guidance_scale").sensible == (
        2,
        3,
    )
    assert abilities.setting("num_inference_steps").default == 20
    assert abilities.setting("source_fit").default == "pad"
    assert abilities.unknown_words("blue") == ["blue"]
    facts, shown = describe_showo2(config, generation, {})
    assert (facts["stage"], facts["image_token_size"], facts["codec"]) == ("2c", 8, "linear")
    assert shown == {
        "training stage": "2c",
        "image tokens": "continuous, 8x8 pixels each; latents of 16 channels (linear codec)",
    }


def test_codecs_of_other_depths():
    shallow = {"codec_config": {"type": "wan", "dim_mult": [1, 2, 4]}}
    assert showo2_abilities(shallow, {}, {}).size_multiple == 8
    told = {"codec_config": {"type": "wan", "scale_factor_spatial": 16}}
    assert showo2_abilities(told, {}, {}).size_multiple == 32


@pytest.mark.parametrize(
    ("height", "width", "message"),
    [
        (432, 440, "`width` is 440, but must be a positive multiple of 16 pixels; try 432 or 448"),
        (0, 432, "`height` is 0"),
        (-16, 432, "`height` is -16"),
        ("432", 432, "`height` is '432', but must be a whole number of pixels"),
        (432.0, 432, "`height` is 432.0"),
        (True, 432, "`height` is True"),
        (16 * 200, 16 * 200, "needs 40,003 positions, but the model has 32,768"),
    ],
)
def test_sizes_that_cannot_be_drawn(height, width, message):
    with pytest.raises(ValueError, match=message):
        showo2_abilities({}, {}, {}).check_size(height, width)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"guidance_scale": -1}, "`guidance_scale` is -1, but must be a number above 0 and at most 100"),
        ({"guidance_scale": float("nan")}, "`guidance_scale` is nan"),
        ({"num_inference_steps": 0}, "`num_inference_steps` is 0, but must be a whole number from 1 to 1000"),
        ({"num_inference_steps": 2.5}, "`num_inference_steps` is 2.5"),
        ({"published_eval": 1}, "`published_eval` is 1, but must be true or false"),
    ],
)
def test_settings_that_cannot_be(given, message):
    with pytest.raises(ValueError, match=message):
        showo2_abilities({}, {}, {}).check_settings(given)


def test_settings_that_there_are_not():
    abilities = showo2_abilities({}, {}, {})
    for name in ("temperature", "top_k", "window", "source_fit"):
        with pytest.raises(UnknownSettingError, match=f"has no setting `{name}`; it has `guidance_scale`"):
            abilities.check_settings({name: 1})
    assert len(abilities.notices({"guidance_scale": 50.0, "num_inference_steps": 2})) == 2


def test_recipes_are_the_authors_in_calls_of_the_model():
    geneval, dpg = RECIPES["geneval"]["paper"], RECIPES["dpg"]["paper"]
    assert (geneval.guidance_scale, geneval.num_inference_steps) == (7.5, 100 - 1)
    assert (dpg.guidance_scale, dpg.num_inference_steps) == (10.0, 50 - 1)
    abilities = showo2_abilities({}, {}, {})
    for recipe in (geneval, dpg):
        assert abilities.check_settings(recipe.given()) and not abilities.notices(recipe.given())


def test_abilities_need_no_torch():
    code = (
        "import sys; import wallaroo_hf.families.registry; "
        "from wallaroo_hf.showo2 import showo2_abilities, showo2_recipes; "
        "showo2_abilities.showo2_abilities({}, {}, {}); "
        "assert not {'torch', 'transformers', 'numpy', 'PIL'} & set(sys.modules)"
    )
    waiting = {**os.environ, "_WALLAROO_HF_REGISTER_LATER": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=waiting)
