"""Fixtures of Show-o2's tests."""

import pytest

from golden_showo2 import converted, load_tiny


@pytest.fixture(scope="session")
def tiny_a_folder(tmp_path_factory):
    """tiny_a as a transformers folder."""
    pytest.importorskip("diffusers")
    return converted(tmp_path_factory.mktemp("tiny_a"))


@pytest.fixture(scope="session", params=["sdpa", "eager"])
def tiny_a(request, tiny_a_folder):
    """tiny_a, by either attention; nobody changes it."""
    return load_tiny(tiny_a_folder, attn_implementation=request.param)
