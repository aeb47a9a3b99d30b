"""The image tokenizer against recordings of the authors'."""

import pytest
import torch

IMAGES = ["square_96x96", "wide_160x96", "tall_64x128"]


@pytest.mark.parametrize("name", IMAGES)
def test_encode(golden, name):
    data = golden.tensors("vq/vq")
    with torch.no_grad():
        encoded = golden.model.vq_model.encode(data[f"{name}.pixels"])
    rows, cols = (edge // 16 for edge in data[f"{name}.pixels"].shape[-2:])
    assert encoded.image_tokens.shape == (1, rows, cols)
    assert torch.equal(encoded.image_tokens.flatten(), data[f"{name}.indices"].flatten())
    torch.testing.assert_close(encoded.latents.reshape(1, -1, 8), data[f"{name}.z"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", IMAGES)
def test_lookup_and_decode(golden, name):
    data = golden.tensors("vq/vq")
    rows, cols = (edge // 16 for edge in data[f"{name}.pixels"].shape[-2:])
    tokens = data[f"{name}.indices"].view(1, rows, cols)
    with torch.no_grad():
        entries = golden.model.vq_model.codebook_lookup(tokens)
        pixels = golden.model.vq_model.decode(tokens)
    torch.testing.assert_close(entries.view(-1, 8), data[f"{name}.codebook_entry"], atol=2e-5, rtol=0)
    torch.testing.assert_close(pixels, data[f"{name}.decoded"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", IMAGES)
def test_pixels_from_png(golden, name):
    """Loading the image and bringing it to its own size gives the very pixels that the authors' code fed."""
    data = golden.tensors("vq/vq")
    image = golden.image(f"vq/{name}")
    pixels = golden.processor.image_processor.to_vq_pixels(image, image.height, image.width)
    torch.testing.assert_close(torch.from_numpy(pixels)[None], data[f"{name}.pixels"], atol=1e-6, rtol=0)
