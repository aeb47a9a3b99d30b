"""Fields that are made from a checkpoint's settings: for Wallaroo those that there always were."""

from __future__ import annotations

import pytest

import running_server  # noqa: F401  skips where the server's packages are missing
from wallaroo_hf.layout.wallaroo_abilities import wallaroo_abilities
from wallaroo_hf.web.schemas import ChatBody, EditBody, GenerationBody, with_settings

SETTINGS = ["guidance_scale", "guidance_min_p", "temperature", "top_k", "top_p"]
ABILITIES = wallaroo_abilities({}, {}, {})
MESSAGES = [{"role": "user", "content": "Hi."}]


@pytest.mark.parametrize("base", [GenerationBody, EditBody, ChatBody])
def test_fields_of_wallaroo(base):
    body = with_settings(base, ABILITIES, own=("window",))
    assert [setting.name for setting in body.settings] == SETTINGS
    assert set(body.model_fields) == {*base.model_fields, *SETTINGS} and not base.settings
    fields = body.model_json_schema()["properties"]
    bounds = {name: {k: v for k, v in fields[name]["anyOf"][0].items() if k != "type"} for name in SETTINGS}
    assert bounds == {
        "guidance_scale": {"minimum": 0, "maximum": 100},
        "guidance_min_p": {"minimum": 0, "maximum": 1},
        "temperature": {"minimum": 0, "maximum": 10},
        "top_k": {"minimum": 0},
        "top_p": {"exclusiveMinimum": 0, "maximum": 1},
    }


@pytest.mark.parametrize("name", ["window", "do_sample", "prompt_template", "source_fit", "published_eval"])
def test_settings_that_no_request_may_give_are_not_denied(name):
    """They are the operator's, another setting's, or Python's."""
    body = with_settings(GenerationBody, ABILITIES, own=("window",))
    with pytest.raises(ValueError, match=f"`{name}` cannot be chosen by a request to this server; leave it out"):
        body.model_validate({"prompt": "a", name: 1})


@pytest.mark.parametrize("name", SETTINGS)
def test_true_is_no_number(name):
    """Whatever field it is in."""
    body = with_settings(GenerationBody, ABILITIES, own=())
    with pytest.raises(ValueError, match=r"valid (number|integer)"):
        body.model_validate({"prompt": "a", name: True})
    assert body.model_validate({"prompt": "a", name: "1"}).given() == {name: 1}


def test_misspelt_fields():
    body = with_settings(ChatBody, ABILITIES, own=())
    for name, says in (
        ("guidence_scale", "no setting `guidence_scale`; it has .*; did you mean `guidance_scale`"),
        ("guidance", "no setting `guidance`; it has `guidance_scale`, `guidance_min_p`"),
        ("mesages", "did you mean `messages`"),
        ("num_inference_steps", "no setting `num_inference_steps`; it has `guidance_scale`.*leave it out"),
    ):
        with pytest.raises(ValueError, match=says):
            body.model_validate({"messages": MESSAGES, name: 1})
