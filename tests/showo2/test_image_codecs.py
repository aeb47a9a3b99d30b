"""Image codecs: numbers of the authors' VAE, and the linear one on scenes."""

from __future__ import annotations

import copy
import pickle
import random
import sys
import threading

import pytest
import torch

from golden_showo2 import VAE, details, recorded
from wallaroo_hf.scenes import random_scene, render_array
from wallaroo_hf.showo2.image_codecs import LinearCodec, Posterior, make_codec

SMALL = {"type": "wan", "base_dim": 4, "num_res_blocks": 1}


@pytest.fixture(scope="module")
def golden_codec(tiny_codec):
    if not VAE.is_file():
        pytest.skip("the VAE is in the whole recording only")
    return tiny_codec


@pytest.fixture(scope="module")
def tiny_codec():
    """The recorded one, or one with random weights where only the part without it is at hand."""
    if not VAE.is_file():
        torch.manual_seed(0)
        return make_codec(SMALL).eval()
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    settings = details("vae/vae")
    settings = {"type": "wan", "base_dim": settings.pop("dim"), **settings}
    settings.pop("note")
    codec = make_codec(settings).eval()
    codec.load_state_dict(convert_wan_vae_to_diffusers(torch.load(VAE, weights_only=True)))
    return codec


@pytest.mark.parametrize("what", ["image", "video"])
@torch.no_grad()
def test_wan_codec_has_the_authors_numbers(golden_codec, monkeypatch, what):
    golden = recorded("vae/vae")
    golden = {name.removeprefix(f"{what}_"): value for name, value in golden.items() if name.startswith(what)}
    posterior = golden_codec.encode_images(golden["pixels"])
    close = {"rtol": 0, "atol": 5e-6}
    torch.testing.assert_close(posterior.mean, golden["mean_normalized"], **close)
    torch.testing.assert_close(posterior.log_variance, golden["logvar_unscaled"], **close)
    for number in range(len(golden["eps"])):
        one = Posterior(posterior.mean[number : number + 1], posterior.log_variance[number : number + 1])
        monkeypatch.setattr(torch, "randn", lambda shape, number=number, **_: golden["eps"][number])
        torch.testing.assert_close(one.sample(), golden["latents"][number : number + 1], **close)
    torch.testing.assert_close(golden_codec.decode_latents(golden["latents"]), golden["decoded"], **close)
    monkeypatch.setattr(torch, "clamp", lambda tensor, **_: tensor)  # which diffusers does last
    torch.testing.assert_close(golden_codec.decode_latents(golden["latents"]), golden["decoded_before_clamp"], **close)


@torch.no_grad()
def test_pictures_are_videos_of_one_frame(tiny_codec):
    pixels = torch.rand(2, 3, 16, 32) * 2 - 1
    posterior = tiny_codec.encode_images(pixels)
    assert posterior.mean.shape == posterior.log_variance.shape == (2, 16, 2, 4)
    assert torch.equal(posterior.mean, tiny_codec.encode_images(pixels.unsqueeze(2)).mean.squeeze(2))
    assert tiny_codec.decode_latents(posterior.mean).shape == pixels.shape
    assert (tiny_codec.spatial_factor, tiny_codec.latent_channels) == (8, 16)


@torch.no_grad()
def test_threads_wait_for_each_other(tiny_codec):
    """The lists of earlier frames are the module's: two calls at once would mix them."""
    videos = [torch.rand(1, 3, 9, 16, 16) * 2 - 1 for _ in range(4)]
    alone = [tiny_codec.encode_images(video).mean for video in videos]
    found: dict[int, torch.Tensor] = {}

    def encode(number: int) -> None:
        with torch.no_grad():
            found[number] = tiny_codec.encode_images(videos[number]).mean

    threads = [threading.Thread(target=encode, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[number], alone[number]) for number in range(4))


def test_wan_codec_can_be_copied_and_adds_no_weights():
    from diffusers import AutoencoderKLWan

    codec = make_codec(SMALL)
    assert codec.state_dict().keys() == AutoencoderKLWan(base_dim=4, num_res_blocks=1).state_dict().keys()
    for other in (copy.deepcopy(codec), pickle.loads(pickle.dumps(codec))):
        assert other.encode_images(torch.zeros(1, 3, 8, 8)).mean.shape == (1, 16, 1, 1)
    assert codec.config["base_dim"] == 4 and codec.config["z_dim"] == 16


@torch.no_grad()
def test_wan_codec_computes_in_the_dtype_of_its_weights():
    codec = make_codec(SMALL)
    pixels = torch.rand(1, 3, 8, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        latents = codec.encode_images(pixels).mean
    assert latents.dtype == torch.float32 and torch.equal(latents, codec.encode_images(pixels.float()).mean)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 3, 8, 12), "multiples of 8"),
        ((1, 1, 8, 8), r"\(1, 1, 8, 8\)"),
        ((3, 8, 8), r"\(3, 8, 8\)"),
        ((1, 3, 4, 8, 8), "4 frames"),
        ((0, 3, 8, 8), r"\(0, 3, 8, 8\)"),
    ],
)
def test_pixels_that_do_not_fit_are_refused(shape, words):
    with pytest.raises(ValueError, match=words):
        make_codec(SMALL).encode_images(torch.zeros(shape))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"type": "vq"}, "'vq'"),
        ({}, "None"),
        ({"type": "linear", "chanels": 16}, "`chanels`"),
        ({"type": "wan", "dim": 8}, "`dim`"),
        ({"type": "linear", "channels": 200}, "200 channels"),
        ({"type": "wan", "z_dim": 8}, "16 numbers for 8 channels"),
    ],
)
def test_settings_that_there_are_not_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        make_codec(settings)


def test_missing_diffusers_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    monkeypatch.delitem(sys.modules, "wallaroo_hf.showo2.wan_codec", raising=False)
    with pytest.raises(ImportError, match=r"pip install wallaroo-hf\[showo2\]"):
        make_codec({"type": "wan"})
    make_codec({"type": "linear"})  # needs none


def test_posterior_takes_one_generator_for_each_picture():
    posterior = Posterior(torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 2.0))
    both = posterior.sample([torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)])
    second = Posterior(posterior.mean[1:], posterior.log_variance[1:]).sample([torch.Generator().manual_seed(2)])
    assert torch.equal(both[1:], second) and not torch.equal(both[0], both[1])
    assert both.std() == pytest.approx(torch.e, rel=0.3)
    torch.manual_seed(3)
    free = posterior.sample([None, torch.Generator().manual_seed(2)])
    assert torch.equal(free[1], both[1]) and posterior.sample().shape == both.shape
    with pytest.raises(ValueError, match="1 generators for 2 pictures"):
        posterior.sample([None])


def _scenes(seed: int, count: int) -> list[torch.Tensor]:
    rng = random.Random(seed)
    arrays = [render_array(random_scene(rng)) for _ in range(count)]
    return [torch.from_numpy(array).permute(2, 0, 1) / 127.5 - 1 for array in arrays]


def test_linear_codec_keeps_scenes():
    codec = LinearCodec().fit(iter(_scenes(0, 60)))
    worst = 99.0
    for picture in _scenes(1, 30):
        posterior = codec.encode_images(picture[None])
        assert posterior.mean.shape == (1, 16, picture.shape[1] // 8, picture.shape[2] // 8)
        kept = codec.decode_latents(posterior.mean)[0]
        assert kept.shape == picture.shape
        worst = min(worst, float(-10 * torch.log10(((kept - picture) / 2).square().mean())))
    assert worst > 25  # dB
    latents = torch.cat([codec.encode_images(one[None]).mean.flatten(2) for one in _scenes(0, 60)], dim=2)
    torch.testing.assert_close(latents.mean((0, 2)), torch.zeros(16), atol=1e-3, rtol=0)
    torch.testing.assert_close(latents.var((0, 2)), torch.ones(16), atol=1e-2, rtol=0)
    torch.testing.assert_close(codec.basis.T @ codec.basis, torch.eye(16), atol=1e-5, rtol=0)


def test_linear_codec_is_saved_whole_and_fits_the_same_again():
    codec = LinearCodec(channels=6, patch=4).fit(_scenes(0, 5))
    assert set(codec.state_dict()) == {"mean", "basis", "scale"}
    other = make_codec({"type": "linear", "channels": 6, "patch": 4})
    other.load_state_dict(codec.state_dict())
    pixels = torch.rand(1, 3, 8, 12) * 2 - 1
    assert torch.equal(other.encode_images(pixels).mean, codec.encode_images(pixels).mean)
    assert torch.equal(LinearCodec(channels=6, patch=4).fit(_scenes(0, 5)).basis, codec.basis)
    assert (other.spatial_factor, other.latent_channels) == (4, 6)


def test_linear_codec_of_all_channels_loses_nothing_and_has_no_noise():
    codec = LinearCodec(channels=12, patch=2).fit(torch.rand(8, 3, 8, 8) * 2 - 1)
    pixels = torch.rand(2, 3, 3, 4, 6) * 2 - 1  # two videos of three frames
    posterior = codec.encode_images(pixels)
    assert posterior.mean.shape == (2, 12, 3, 2, 3)
    torch.testing.assert_close(codec.decode_latents(posterior.sample()), pixels, atol=1e-5, rtol=0)
    assert torch.equal(codec.encode_images(pixels[:, :, 1]).mean, posterior.mean[:, :, 1])
    assert codec.decode_latents(torch.full((1, 12, 1, 1), 99.0)).abs().max() <= 1


def test_linear_codec_of_pictures_without_variety():
    codec = LinearCodec().fit([torch.full((3, 8, 8), 0.25)])
    posterior = codec.encode_images(torch.full((1, 3, 16, 8), 0.25))
    assert torch.equal(posterior.mean, torch.zeros(1, 16, 2, 1))
    with pytest.raises(ValueError, match="at least one"):
        LinearCodec().fit([])
    with pytest.raises(ValueError, match="multiples of 8"):
        LinearCodec().fit([torch.zeros(3, 8, 9)])
