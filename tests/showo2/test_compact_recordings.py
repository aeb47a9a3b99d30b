"""The compact set holds what the authors' code gave and nothing else, and is small."""

from __future__ import annotations

import json
import lzma

import pytest
import torch
from safetensors.torch import load, load_file

from golden_showo2 import COMPACT, ROOT

FILES = sorted(path for path in COMPACT.rglob("*") if path.is_file() and path.name != "README.md")


def _content(path):
    return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()


def test_it_fits_into_a_repository():
    assert sum(path.stat().st_size for path in COMPACT.rglob("*") if path.is_file()) <= 2_000_000


@pytest.mark.skipif(ROOT == COMPACT, reason="the whole recording is not here to compare with")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(COMPACT).as_posix())
def test_it_is_a_part_of_the_whole(path):
    whole = ROOT / path.relative_to(COMPACT).with_name(path.name.removesuffix(".xz"))
    if whole.suffix == ".json":
        assert json.loads(_content(path)) == json.loads(whole.read_bytes())
    elif whole.suffix == ".safetensors":
        theirs, tensors = load_file(whole), load(_content(path))
        assert tensors
        for name, tensor in tensors.items():
            assert torch.equal(tensor, theirs[name][:, -tensor.shape[1] :] if "logits" in name else theirs[name]), name
    else:
        assert path.read_bytes() == whole.read_bytes()
