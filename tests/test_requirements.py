"""The ranges in pyproject.toml hold what was run, and a transformers outside them is said."""

from __future__ import annotations

import tomllib
import warnings
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from wallaroo_hf import _requirements

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
LINES = {*PROJECT["dependencies"], *(line for lines in PROJECT["optional-dependencies"].values() for line in lines)}
WANTED = [Requirement(line) for line in sorted(LINES)]
PINNED = {
    one.name.replace("_", "-"): Version(str(one.specifier).removeprefix("=="))
    for one in map(
        Requirement, (line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if "#" not in line)
    )
}
NEVER_HERE = {"bitsandbytes", "torchao", "flash-attn"}  # their installation needs a GPU or gigabytes


@pytest.mark.parametrize("wanted", WANTED, ids=str)
def test_the_floor_is_what_ci_installs(wanted):
    if wanted.name in NEVER_HERE | {"wallaroo-hf"}:
        return
    floor = next(Version(one.version) for one in wanted.specifier if one.operator == ">=")
    pinned = PINNED[wanted.name.replace("_", "-")]
    assert pinned.release[: len(floor.release)] == floor.release
    assert wanted.specifier.contains(pinned)


@pytest.mark.parametrize("name", ["transformers", "uvicorn"])
def test_what_is_inherited_from_has_a_cap(name):
    specifier = next(one.specifier for one in WANTED if one.name == name)
    assert any(one.operator == "<" for one in specifier)


@pytest.mark.parametrize("installed", ["5.23.1", "5.25.0", "6.0.0", "5.25.0.dev0"])
def test_another_transformers_is_said_in_one_sentence(monkeypatch, installed):
    monkeypatch.setattr(_requirements, "version", lambda name: installed)
    with pytest.warns(UserWarning) as caught:
        _requirements.warn_of_untested_transformers()
    specifier = next(one.specifier for one in WANTED if one.name == "transformers")
    (message,) = (str(one.message) for one in caught)
    assert installed in message and str(specifier) in message and "\n" not in message


def test_the_tested_one_passes_in_silence(monkeypatch):
    monkeypatch.setattr(_requirements, "version", lambda name: "5.24.3")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _requirements.warn_of_untested_transformers()
