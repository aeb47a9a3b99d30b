"""The registry: its addresses lead somewhere, and what is no checkpoint of a family is refused in a sentence."""

from __future__ import annotations

import dataclasses
import json

import pytest

from wallaroo_hf import default_checkpoint
from wallaroo_hf.families.registry import FAMILIES, Family, family_of, find_family, register_family

WALLAROO = FAMILIES["wallaroo"]


@pytest.mark.parametrize(
    "attribute", [field.name for field in dataclasses.fields(Family) if ":" in str(getattr(WALLAROO, field.name))]
)
def test_addresses(attribute):
    if attribute != "paper":
        assert WALLAROO.resolve(attribute) is not None


def test_what_is_recognised_and_what_is_not_there():
    assert "gen_image_head." in WALLAROO.resolve("recognises")
    with pytest.raises(ValueError, match="Wallaroo has no kit"):
        dataclasses.replace(WALLAROO, kit=None).resolve("kit")


def test_families_of_checkpoints(tmp_path):
    assert find_family(default_checkpoint()) is WALLAROO
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")
    with pytest.raises(ValueError, match="holds a model of type 'llama', but this needs a Wallaroo"):
        find_family(tmp_path)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="No checkpoint could be loaded from"):
        find_family(tmp_path)
    with pytest.raises(ValueError, match="of type 'None'"):
        family_of(None, "x")


def test_a_name_is_taken_once():
    register_family(WALLAROO)
    with pytest.raises(ValueError, match="belongs to Wallaroo already"):
        register_family(dataclasses.replace(WALLAROO, title="Other"))
