"""The image tokenizer: shapes, precision, and what it refuses."""

import copy

import pytest
import torch
from transformers import AutoModel

from wallaroo_hf import WallarooVQModel


@pytest.fixture
def vq_model(model):
    return copy.deepcopy(model.vq_model)


@pytest.fixture
def pixels():
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_shapes_and_norms(vq_model, pixels):
    with torch.no_grad():
        encoded = vq_model.encode(pixels)
        decoded = vq_model.decode(encoded.image_tokens)
    assert encoded.image_tokens.shape == (2, 4, 6) and encoded.image_tokens.dtype == torch.int64
    assert encoded.latents.shape == (2, 4, 6, 8)
    torch.testing.assert_close(encoded.latents.norm(dim=-1), torch.ones(2, 4, 6))
    torch.testing.assert_close(vq_model.codebook_lookup(encoded.image_tokens).norm(dim=-1), torch.ones(2, 4, 6))
    assert decoded.shape == pixels.shape


def test_batch_equals_single(vq_model, pixels):
    with torch.no_grad():
        together = vq_model.encode(pixels)
        alone = vq_model.encode(pixels[1:])
    assert torch.equal(together.image_tokens[1:], alone.image_tokens)


def test_one_image_of_one_code(vq_model):
    """As in a batch, which torch's group norm treats otherwise where a group is one channel."""
    assert vq_model.config.base_channels == vq_model.config.norm_num_groups
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        together, alone = vq_model.encode(pixels), vq_model.encode(pixels[1:])
        decoded = vq_model.decode(together.image_tokens)
        # a number less its own mean is rounding, which the norm divides by the root of its epsilon, 1e-3
        torch.testing.assert_close(vq_model.decode(alone.image_tokens), decoded[1:], atol=0.01, rtol=0)
    assert torch.equal(together.image_tokens[1:], alone.image_tokens) and alone.image_tokens.shape == (1, 1, 1)


def test_tokens_are_the_nearest_codes(vq_model, pixels):
    with torch.no_grad():
        encoded = vq_model.encode(pixels)
        codebook = vq_model.codebook_lookup(torch.arange(vq_model.config.codebook_size))
    distances = torch.cdist(encoded.latents.flatten(0, 2), codebook)
    assert torch.equal(distances.argmin(dim=-1), encoded.image_tokens.flatten())


@pytest.mark.parametrize("cast", [lambda m: m.to(torch.bfloat16), lambda m: m.half(), lambda m: m.bfloat16()])
def test_casting_changes_nothing(vq_model, pixels, cast):
    with torch.no_grad():
        before = vq_model.encode(pixels).latents
        after = cast(vq_model).encode(pixels).latents
    assert vq_model.dtype == torch.float32
    assert torch.equal(before, after)


def test_autocast_changes_nothing(vq_model, pixels):
    with torch.no_grad():
        before = vq_model.encode(pixels)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            after = vq_model.encode(pixels)
            decoded = vq_model.decode(after.image_tokens)
    assert torch.equal(before.latents, after.latents) and decoded.dtype == torch.float32


def test_save_and_load(vq_model, pixels, tmp_path):
    vq_model.save_pretrained(tmp_path)
    for loaded in (WallarooVQModel.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        with torch.no_grad():
            assert torch.equal(loaded.encode(pixels).image_tokens, vq_model.encode(pixels).image_tokens)


def test_refused_shapes(vq_model):
    with pytest.raises(ValueError, match="multiples of 16"):
        vq_model.encode(torch.zeros(1, 3, 60, 64))
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        vq_model.encode(torch.zeros(3, 64, 64))
    with pytest.raises(ValueError, match=r"\(B, rows, cols\)"):
        vq_model.decode(torch.zeros(1, 16, dtype=torch.long))
