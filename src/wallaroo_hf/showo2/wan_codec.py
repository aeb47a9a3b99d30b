"""`WanCodec`: the VAE of Wan2.1 with the methods of an image codec. The only file of the model that imports diffusers."""

import inspect
import threading
from typing import Any

import torch
from diffusers import AutoencoderKLWan

from .image_codecs import Posterior, check_codes, check_pixels

__all__ = ["SETTINGS", "WanCodec"]

# Everything that a `codec_config` of the type "wan" may hold.
SETTINGS = set(inspect.signature(AutoencoderKLWan.__init__).parameters) - {"self"}
_FRAMES_PER_LATENT = 4  # after the first, which has one for itself; diffusers has this number in its loops


class _CopyableLock:
    """A lock that a copied or unpickled module has anew."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()


class WanCodec(AutoencoderKLWan):
    """diffusers' `AutoencoderKLWan`, whose arguments it has; see [`wallaroo_hf.showo2.image_codecs.ImageCodec`].

    Its causal convolutions keep what they saw of earlier frames in lists on the module while a call runs, so calls from
    several threads wait for each other.

    Args:
        settings: of `AutoencoderKLWan`.

    Raises:
        ValueError: if `latents_mean` or `latents_std` have not one number for each of `z_dim` channels.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name in ("latents_mean", "latents_std"):
            if len(self.config[name]) != self.config["z_dim"]:
                raise ValueError(
                    f"`{name}` has {len(self.config[name])} numbers for {self.config['z_dim']} channels (`z_dim`); give "
                    "one for each."
                )
        self._one_at_a_time = _CopyableLock()

    @property
    def spatial_factor(self) -> int:
        """Pixels for each latent, along either edge."""
        return int(2 ** (len(self.config["dim_mult"]) - 1) * (self.config["patch_size"] or 1))

    @property
    def latent_channels(self) -> int:
        """Of its latents."""
        return int(self.config["z_dim"])

    def encode_images(self, pixels: torch.Tensor) -> Posterior:
        """See [`ImageCodec`]; a video of 1 + 4k frames has 1 + k frames of latents.

        Raises:
            ValueError: for pixels of another shape, of edges that are no multiples of `spatial_factor`, or of another
                number of frames.
        """
        check_pixels(pixels, self.spatial_factor)
        is_video = pixels.dim() == 5
        if is_video and pixels.shape[2] % _FRAMES_PER_LATENT != 1:
            raise ValueError(
                f"A video of {pixels.shape[2]} frames does not fit the image codec; give 1, 5, 9 or any 1 + 4k frames."
            )
        frames = (pixels if is_video else pixels.unsqueeze(2)).to(self.quant_conv.weight)
        with self._one_at_a_time, torch.autocast(pixels.device.type, enabled=False):
            latents = self.encode(frames).latent_dist
        center, spread = self._normalisation(latents.mean)
        mean, log_variance = (latents.mean - center) / spread, latents.logvar
        return Posterior(mean, log_variance) if is_video else Posterior(mean.squeeze(2), log_variance.squeeze(2))

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """See [`ImageCodec`].

        Raises:
            ValueError: for latents of another shape.
        """
        check_codes(latents, self.latent_channels)
        is_video = latents.dim() == 5
        frames = (latents if is_video else latents.unsqueeze(2)).to(self.quant_conv.weight)
        center, spread = self._normalisation(frames)
        with self._one_at_a_time, torch.autocast(latents.device.type, enabled=False):
            pixels = self.decode(frames * spread + center).sample
        return pixels if is_video else pixels.squeeze(2)

    def _normalisation(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of latents, each `(1, C, 1, 1, 1)`."""
        pairs = torch.tensor([self.config["latents_mean"], self.config["latents_std"]], dtype=like.dtype)
        center, spread = pairs.to(like.device).view(2, 1, -1, 1, 1, 1)
        return center, spread
