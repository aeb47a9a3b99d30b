"""Shared fixtures: where golden data is, and models that are built or converted once."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="wallaroo-tests-")  # before `datasets` is imported
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"

import wallaroo_hf
import wallaroo_hf.cli.drawing_prompts  # commands import it late, when a test may have replaced what it takes
from golden import GoldenSet

REPOSITORY = Path(__file__).resolve().parents[1]
COMPACT = REPOSITORY / "tests" / "assets" / "compact"
REFERENCE = Path(os.environ.get("WALLAROO_REFERENCE", REPOSITORY.parent / "shared" / "reference"))

torch.set_num_threads(1)  # tiny models: more threads only wait for each other


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="also run tests that take minutes or gigabytes")


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["HF_DATASETS_CACHE"], ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--run-slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="opt in with --run-slow"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that take `golden` run on the compact set always, and on the full one where it is."""
    if "golden" in metafunc.fixturenames:
        sets = ["compact"] + (["full"] if REFERENCE.is_dir() else [])
        metafunc.parametrize("golden", sets, indirect=True, scope="session")


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> GoldenSet:
    """Golden data of the authors' implementation, with its checkpoint converted by our converter."""
    return _golden_set(request.param, tmp_path_factory)


@pytest.fixture(scope="session")
def compact(tmp_path_factory: pytest.TempPathFactory) -> GoldenSet:
    """The compact golden set that ships in the repository: the model most tests use."""
    return _golden_set("compact", tmp_path_factory)


_SETS: dict[str, GoldenSet] = {}


def _golden_set(name: str, tmp_path_factory: pytest.TempPathFactory) -> GoldenSet:
    if name not in _SETS:
        root = COMPACT if name == "compact" else REFERENCE
        _SETS[name] = GoldenSet(name, root, tmp_path_factory.mktemp(name))
    return _SETS[name]


@pytest.fixture
def model(compact: GoldenSet) -> wallaroo_hf.WallarooForConditionalGeneration:
    """A tiny model of one's own: changes stay in the test."""
    return copy.deepcopy(compact.model)


@pytest.fixture
def processor(compact: GoldenSet) -> wallaroo_hf.WallarooProcessor:
    """The tiny model's processor, a copy."""
    return copy.deepcopy(compact.processor)


@pytest.fixture(scope="session")
def full_size() -> wallaroo_hf.WallarooForConditionalGeneration:
    """The released model's shapes, without memory. Shared: copy it before changing it."""
    text = {"hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4}
    text |= {"intermediate_size": 18944, "vocab_size": 152064}
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
    with torch.device("meta"):
        config = wallaroo_hf.WallarooConfig(text_config=text, vision_config=vision)
        return wallaroo_hf.WallarooForConditionalGeneration(config)
