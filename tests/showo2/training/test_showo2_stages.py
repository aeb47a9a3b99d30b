"""The recipe of Show-o2: what each stage trains, how fast, and what it can be told otherwise."""

import dataclasses

import pytest

from small_showo2 import new_showo2
from wallaroo_hf.families.training_stages import check_order
from wallaroo_hf.showo2.training.showo2_kit import KIT
from wallaroo_hf.showo2.training.showo2_stages import PARTS, STAGES, ShowO2Stage, showo2_stage

LANGUAGE = {"language_model", "lm_head"}
SEMANTIC = {"visual.semantic_patch", "visual.position_embedding", "visual.semantic_layers"}
FLOW = {"visual.projector_patch", "visual.fusion", "time_embedding", "flow_head"}


@pytest.fixture(scope="module")
def names():
    return [name for name, _ in new_showo2()[0].named_parameters()]


def _part(name):
    name = name.removeprefix("model.")
    first, second = name.split(".")[:2]
    return f"{first}.{second}" if first == "visual" else first


@pytest.mark.parametrize(
    ("stage", "trained"),
    [
        ("pre-distillation", SEMANTIC),
        ("1a", FLOW),
        ("1b", FLOW),
        ("2a", {"visual.fusion"}),
        # released code: the time embedding is in no group of its optimizer
        ("2b", (LANGUAGE | SEMANTIC | FLOW) - {"time_embedding"}),
        ("2c", (LANGUAGE | SEMANTIC | FLOW) - {"time_embedding"}),
        ("interleaved", FLOW),
    ],
)
def test_what_trains(names, stage, trained):
    chosen = showo2_stage(stage)
    found = {_part(name) for name in names if chosen.is_trained(name)}
    assert found == trained - {"lm_head"}  # tied
    chosen.check_parts(names)
    assert not chosen.is_trained("vae.encoder.conv_in.weight")


def test_the_table_of_the_recipe():
    def numbers(name):
        stage = showo2_stage(name)
        ratio = stage.task_ratio
        return (
            *(stage.learning_rate, stage.lr_scheduler_type, stage.warmup_steps, stage.max_steps, stage.text_weight),
            ratio.get("generation", 0) / ratio.get("understanding", 1),
        )

    constant = "constant_with_warmup"
    assert numbers("pre-distillation")[:4] == (2e-5, "cosine", 0, 200_000)
    assert numbers("1a") == (1e-4, constant, 2000, 150_000, 0.2, 3)
    assert numbers("1b") == (1e-4, constant, 0, 40_000, 0.2, 3)
    assert numbers("2a") == (5e-5, "cosine", 65, 2180, 1.0, 1)
    assert numbers("2b")[0] == numbers("2c")[0] == 1e-5
    assert numbers("interleaved")[0] == 1e-4 and showo2_stage("interleaved").text_weight == 0.2
    for make in STAGES.values():
        stage = make()
        assert (stage.adam_beta1, stage.adam_beta2, stage.adam_epsilon) == (0.9, 0.999, 1e-8)
        assert stage.weight_decay == 0 and stage.max_grad_norm == 1 and stage.caption_dropout == 0.1


def test_rates_of_parts(names):
    stage = showo2_stage("2c")
    rates = {name: stage.rate(name) for name in names}
    seen = {_part(name) for name, rate in rates.items() if rate == 2e-6}
    assert seen == SEMANTIC | {"visual.projector_patch"}
    assert {rate for name, rate in rates.items() if _part(name) not in seen} == {None}
    closer = stage.override({"learning_rates": {"flow_head.": "1e-4", "flow_head.output.": 3e-4}})
    assert closer.rate("flow_head.output.weight") == 3e-4 and closer.rate("flow_head.norm.weight") == 1e-4
    assert closer.rate("model.visual.semantic_patch.bias") is None


def test_parameter_groups_hold_what_trains_once():
    model, _ = new_showo2()
    stage = showo2_stage("2b")
    for name, parameter in model.named_parameters():
        parameter.requires_grad = stage.is_trained(name) and "semantic_layers" not in name
    groups = KIT.parameter_groups(model, stage)
    assert [group["lr"] for group in groups] == [2e-6]
    wanted = {
        id(parameter)
        for name, parameter in model.named_parameters()
        if stage.rate(name) == 2e-6 and "semantic_layers" not in name
    }
    assert {id(parameter) for parameter in groups[0]["params"]} == wanted


def test_order():
    assert check_order("1a", showo2_stage("1b")) is None
    assert "expects one of stage 1b or 1a" in check_order(None, showo2_stage("2a"))
    with pytest.raises(ValueError, match="starts from a checkpoint of stage 2b"):
        check_order("1a", showo2_stage("2c"))
    assert check_order("1a", showo2_stage("interleaved")) is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"trains": "flow_head"}, "with their dots"),
        ({"trains": ["vae."]}, "image codec is frozen"),
        ({"learning_rates": {"flow_head.": "fast"}}, "must be a number"),
        ({"learning_rates": 3}, "must give rates"),
        ({"understanding": "poem"}, "must be one of caption, plain, image, chat"),
        ({"fit": "stretch"}, "must be one of crop, pad"),
        ({"caption_dropout": 2}, r"must be in \[0, 1\]"),
        ({"text_weight": -1}, "must be at least 0"),
        ({"teacher": "google/siglip"}, "has no teacher"),
        ({"image_sizes": [3]}, "must be of the kind"),
        ({"task_ratio": {"video": 1}}, "task_ratio"),
        ({"lerning_rate": 1}, "did you mean `learning_rate`"),
    ],
)
def test_settings_that_cannot_be(settings, words):
    with pytest.raises(ValueError, match=words):
        showo2_stage("1a").override(settings)


def test_words_stand_for_parts():
    stage = showo2_stage("1a").override({"trains": ["fusion", "model.language_model.norm."]})
    assert stage.trains == ("visual.fusion.", "language_model.norm.")
    assert showo2_stage("1a").to_dict()["trains"] == "flow_parts"
    assert stage.override({"trains": "all", "image_sizes": [[32, 64]]}).trains == PARTS["all"]
    with pytest.raises(ValueError, match=r"trains flow_tail\., but the model has no such parameters"):
        dataclasses.replace(stage, trains=("flow_tail.",)).check_parts(["flow_head.norm.weight"])
    with pytest.raises(ValueError, match="needs the folder"):
        dataclasses.replace(showo2_stage("pre-distillation"), teacher=None)
    with pytest.raises(ValueError, match="must be one of pre-distillation, 1a"):
        showo2_stage("3")
    assert isinstance(showo2_stage("2A"), ShowO2Stage)
