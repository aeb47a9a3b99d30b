"""Times and noise of training are those of the authors' code, and follow from an image's seed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from wallaroo_hf.showo2.flow_noise import CLEAN, draw_time, image_noise, noisy, shifted_time, time_shift

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference_showo2"


@pytest.mark.parametrize(("length", "mu"), [(256, 0.5), (4096, 1.15), (730, 0.580234375), (1025, 0.6301692708333333)])
def test_shifts(length, mu):
    assert time_shift(length) == pytest.approx(mu, abs=1e-12)


@pytest.mark.parametrize("length", [730, 1025, 4097])
def test_times_of_normal_numbers(length):
    known = json.loads((REFERENCE / "schedules.json").read_text())[f"train_seq{length}"]
    found = [shifted_time(normal, length) for normal in known["u"]]
    assert found == pytest.approx(known["t"], abs=3e-7)  # recorded in float32


def test_recorded_batch():
    recorded = load_file(REFERENCE / "tiny_a" / "train_t2i_caption.safetensors")
    for number, normal in enumerate(recorded["u_normal"].tolist()):
        time = float(recorded["t"][number])
        if number < 2:  # the third is a caption's
            assert shifted_time(normal, 26) == pytest.approx(time, abs=1e-7)
        else:
            assert time == CLEAN
        made = noisy(recorded["clean_latents"][number], recorded["noise"][number], time)
        torch.testing.assert_close(made.latents, recorded["noised_latents"][number], rtol=0, atol=3e-7)
        torch.testing.assert_close(made.velocity, recorded["velocity_target"][number], rtol=0, atol=0)


def test_a_clean_image_is_the_image():
    latents, (_, noise) = torch.randn(16, 4, 6), image_noise((16, 4, 6), 3)
    assert torch.equal(noisy(latents, noise, CLEAN).latents, latents)


def test_noise_follows_from_the_seed():
    sampled, noise = image_noise((16, 4, 6), 3)
    again = image_noise((16, 4, 6), 3)
    assert torch.equal(sampled, again[0]) and torch.equal(noise, again[1]) and not torch.equal(sampled, noise)
    assert not torch.equal(noise, image_noise((16, 4, 6), 4)[1])
    assert noise.dtype == torch.float32


def test_extreme_numbers_stay_times():
    times = [shifted_time(normal, 730) for normal in (-50.0, 50.0)]
    assert 0 <= times[0] < 1e-15 and 1 - 1e-15 < times[1] <= 1
    rng = np.random.default_rng(0)
    drawn = np.array([draw_time(rng, 37) for _ in range(2000)])
    assert 0 < drawn.min() and drawn.max() < 1
    assert np.median(drawn) == pytest.approx(shifted_time(0.0, 37), abs=0.02)
