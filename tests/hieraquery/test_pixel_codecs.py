"""Image codecs of HieraQuery."""

import pytest
import torch

from wallaroo_hf.hieraquery.pixel_codecs import make_pixel_codec

KL = {
    "_class_name": "AutoencoderKL",
    **{"block_out_channels": [8, 8], "down_block_types": ["DownEncoderBlock2D"] * 2, "norm_num_groups": 4},
    **{"up_block_types": ["UpDecoderBlock2D"] * 2, "latent_channels": 4, "layers_per_block": 1},
    **{"scaling_factor": 1.5305, "shift_factor": 0.0609},
}
DC = {
    "_class_name": "AutoencoderDC",
    **{"latent_channels": 4, "attention_head_dim": 4, "scaling_factor": 0.41},
    **{"encoder_block_types": ["ResBlock"] * 2, "decoder_block_types": ["ResBlock"] * 2},
    **{"encoder_block_out_channels": [8, 8], "decoder_block_out_channels": [8, 8]},
    **{"encoder_layers_per_block": [1, 1], "decoder_layers_per_block": [1, 1]},
    **{"encoder_qkv_multiscales": [[], []], "decoder_qkv_multiscales": [[], []]},
    **{"decoder_norm_types": "rms_norm", "decoder_act_fns": "silu"},
}


@pytest.mark.parametrize("settings", [KL, DC], ids=["kl", "dc"])
def test_latents_are_diffusers_own_normalised(settings):
    torch.manual_seed(0)
    codec = make_pixel_codec(settings).eval()
    pixels = torch.rand(2, 3, 8, 12) * 2 - 1
    with torch.no_grad():
        latents = codec.encode_images(pixels).mean
        seen = codec.vae.encode(pixels)
        raw = seen.latent_dist.mean if settings is KL else seen.latent
        expected = (raw - settings.get("shift_factor", 0)) * settings["scaling_factor"]
        torch.testing.assert_close(latents, expected)
        assert latents.shape == (2, codec.latent_channels, 4, 6) and codec.spatial_factor == 2
        torch.testing.assert_close(
            codec.decode_latents(latents), codec.vae.decode(raw).sample.clamp(-1, 1), atol=1e-5, rtol=0
        )
    with pytest.raises(ValueError, match="use multiples of 2"):
        codec.encode_images(torch.zeros(1, 3, 7, 8))


def test_pixels_are_their_own_latents():
    codec = make_pixel_codec({"_class_name": "pixels"})
    pixels = torch.rand(1, 3, 5, 7) * 2 - 1
    assert torch.equal(codec.decode_latents(codec.encode_images(pixels).mean), pixels)


def test_wallaroos_tokenizer_snaps_to_codes():
    settings = {"codebook_size": 32, "embed_dim": 4, "base_channels": 32, "channel_multiplier": [1, 1]}
    codec = make_pixel_codec({"_class_name": "WallarooVQModel", **settings, "num_res_blocks": 1}).eval()
    pixels = torch.rand(2, 3, 8, 12) * 2 - 1
    with torch.no_grad():
        latents = codec.encode_images(pixels).mean
        assert latents.shape == (2, 4, 8 // codec.spatial_factor, 12 // codec.spatial_factor)
        torch.testing.assert_close(latents.square().mean(1), torch.ones_like(latents[:, 0]))
        expected = codec.tokenizer.decode(codec.tokenizer.encode(pixels).image_tokens).clamp(-1, 1)
        torch.testing.assert_close(codec.decode_latents(latents + 1e-4), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"_class_name": "AutoencoderTiny"}, "is a 'AutoencoderTiny', but this needs AutoencoderKL, AutoencoderDC"),
        ({"_class_name": "pixels", "factor": 2}, "'pixels' has no setting `factor`; remove it"),
        ({**KL, "lattent_channels": 4}, "AutoencoderKL has no setting `lattent_channels`; remove it"),
    ],
)
def test_other_codecs_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_pixel_codec(settings)
