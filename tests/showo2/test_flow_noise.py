"""Times and noise of training are those of the authors' code, and follow from an image's seed."""

import numpy as np
import pytest
import torch

from golden_showo2 import details, recorded
from wallaroo_hf.showo2.flow_noise import CLEAN, draw_time, image_noise, noisy, shifted_time, time_shift


@pytest.mark.parametrize(("length", "mu"), [(256, 0.5), (4096, 1.15), (730, 0.580234375), (1025, 0.6301692708333333)])
def test_shifts(length, mu):
    assert time_shift(length) == pytest.approx(mu, abs=1e-12)


@pytest.mark.parametrize("length", [730, 1025, 4097])
def test_times_of_normal_numbers(length):
    known = details("schedules")[f"train_seq{length}"]
    found = [shifted_time(normal, length) for normal in known["u"]]
    assert found == pytest.approx(known["t"], abs=3e-7)  # recorded in float32


def test_recorded_batch():
    batch = recorded("tiny_a/train_t2i_caption")
    for number, normal in enumerate(batch["u_normal"].tolist()):
        time = float(batch["t"][number])
        if number < 2:  # the third is a caption's
            assert shifted_time(normal, 26) == pytest.approx(time, abs=1e-7)
        else:
            assert time == CLEAN
        made = noisy(batch["clean_latents"][number], batch["noise"][number], time)
        torch.testing.assert_close(made.latents, batch["noised_latents"][number], rtol=0, atol=3e-7)
        torch.testing.assert_close(made.velocity, batch["velocity_target"][number], rtol=0, atol=0)


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
    assert drawn.min() > 0 and drawn.max() < 1
    assert np.median(drawn) == pytest.approx(shifted_time(0.0, 37), abs=0.02)
