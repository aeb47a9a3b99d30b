"""What was drawn before is drawn again: tokens, and pixels after rounding (see `frozen.py`)."""

from __future__ import annotations

import itertools

import pytest
import torch

from frozen import built_in, built_in_drawings, frozen_drawings, recorded, run
from helpers import draw

# Where two codes are equally likely up to rounding, another processor may take the other one.
MAX_PARTED = 1
MAX_OTHER_PIXELS = 1e-3  # of all, and by 1: values at the edge between two
SMALL = {"generation_mode": "image", "height": 64, "width": 64, "return_tensors": "pt"}


def _compare(name, model, processor, drawings):
    tokens, pixels = recorded(name)
    parted, num_drawings, compared = [], 0, 0
    for drawing, asked, settings in drawings:
        num_drawings += 1
        drawn, images = run(model, processor, asked, settings)
        if drawn != tokens[drawing]:
            parted.append(drawing)
            continue
        for row, image in enumerate(images):
            if f"{drawing}/{row}" in pixels:
                other = (image.int() - pixels[f"{drawing}/{row}"].int()).abs()
                assert other.max() <= 1 and (other > 0).float().mean() <= MAX_OTHER_PIXELS, drawing
                compared += 1
    assert len(parted) <= MAX_PARTED, f"drawn otherwise than before: {parted}"
    assert num_drawings == len(tokens)
    assert compared >= len(pixels) - 2 * len(parted) > 0


def test_the_frozen_checkpoint_draws_what_it_drew(compact):
    drawings = list(frozen_drawings())
    assert len(drawings) == 60
    _compare("compact", compact.model, compact.processor, drawings)


def test_the_built_in_checkpoint_draws_what_it_drew():
    """After other weights: `python tests/frozen.py built_in`."""
    _compare("built_in", *built_in(), built_in_drawings())


def test_rounding_to_bytes_is_the_released_one(processor):
    """`127.5 x + 128`, clamped and cut off; with 127.5, or rounded, half of these values would differ."""
    values = torch.linspace(-1.02, 1.02, 4096).view(1, 1, 64, 64).expand(1, 3, 64, 64)
    (image,) = processor.post_process_multimodal_output(values, generation_mode="image")
    got = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(64, 64, 3)[..., 0]
    assert torch.equal(got, (127.5 * values[0, 0] + 128).clamp(0, 255).to(torch.uint8))


@pytest.mark.parametrize("window", [None, 6])
def test_noise_is_drawn_for_64_positions_at_a_time(model, processor, window):
    """So a generator that draws a second image goes on behind whole blocks of them, whatever the first one's size."""
    inputs = processor(text=["a cat"], **SMALL)  # 16 codes
    more = {} if window is None else {"window": window}
    generator = torch.Generator().manual_seed(5)
    together = [draw(model, inputs, generator=generator, **more) for _ in range(2)]
    behind = torch.Generator().manual_seed(5)
    torch.rand(64, model.config.codebook_size, generator=behind)
    assert together[0] == draw(model, inputs, generator=torch.Generator().manual_seed(5), **more)
    assert together[1] == draw(model, inputs, generator=behind, **more)
    assert torch.equal(generator.get_state(), behind.get_state())


def test_drawings_are_all_different():
    """Otherwise a recording would hold less than it seems to."""
    tokens, _ = recorded("compact")
    for one, other in itertools.combinations(tokens, 2):
        assert tokens[one] != tokens[other], (one, other)
