"""The frozen image tokenizer: pixels to codes, codes to pixels.

Encoder and decoder are transformers' Janus VQ-VAE (the same architecture as LlamaGen's VQ-16). The quantizer is ours:
LlamaGen normalises both the latents and the codebook, and its images need not be square.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.models.janus.modeling_janus import JanusVQVAEDecoder, JanusVQVAEEncoder
from transformers.utils import ModelOutput

from .configuration import WallarooVQConfig

__all__ = ["WallarooVQModel", "WallarooVQOutput"]

_ROWS_AT_ONCE = 8192  # latents compared with the codebook at a time: 512 MiB of scores for 16,384 codes


@dataclass
class WallarooVQOutput(ModelOutput):
    """What [`WallarooVQModel.encode`] returns.

    Attributes:
        image_tokens: `(B, rows, cols)` int64, index of the nearest code.
        latents: `(B, rows, cols, embed_dim)` float32, L2-normalised, not quantised.
    """

    image_tokens: torch.LongTensor | None = None
    latents: torch.FloatTensor | None = None


class WallarooVQQuantizer(nn.Module):
    """Nearest code by cosine similarity."""

    def __init__(self, config: WallarooVQConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.codebook_size, config.embed_dim)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Indices of the nearest codes of unit vectors: `(..., embed_dim)` to `(...)`."""
        codebook = F.normalize(self.embedding.weight, dim=-1)  # (codes, embed_dim)
        flat = latents.reshape(-1, latents.shape[-1])
        # between unit vectors the largest dot product is the smallest distance
        indices = [(rows @ codebook.T).argmax(dim=-1) for rows in flat.split(_ROWS_AT_ONCE)]
        return torch.cat(indices).view(latents.shape[:-1])

    def lookup(self, image_tokens: torch.Tensor) -> torch.Tensor:
        """Unit vectors of codes: `(...)` to `(..., embed_dim)`."""
        return F.normalize(self.embedding(image_tokens), dim=-1)


class WallarooVQModel(PreTrainedModel):
    r"""LlamaGen's image tokenizer (arXiv 2406.06525): one code per `image_token_size` x `image_token_size` pixels.

    It computes in float32 always: casting the model (`.to(torch.bfloat16)`) or autocast leaves it as it is, because
    rounding changes codes.
    """

    config: WallarooVQConfig
    main_input_name = "pixel_values"
    _no_split_modules = ["WallarooVQModel"]
    # Its few attention blocks are transformers' Janus ones, which have one implementation of their own; whatever is
    # chosen for the language model is fine with them.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: WallarooVQConfig) -> None:
        super().__init__(config)
        self.encoder = JanusVQVAEEncoder(config)
        self.quantize = WallarooVQQuantizer(config)
        self.quant_conv = nn.Conv2d(config.latent_channels, config.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.latent_channels, 1)
        self.decoder = JanusVQVAEDecoder(config)
        self.post_init()

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "WallarooVQModel":
        """Follows every move, but no cast: `fn` is what `.to()`, `.cuda()`, `.half()` and the like map over weights."""

        def keep_dtype(tensor: torch.Tensor) -> torch.Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_dtype, recurse)

    def _full_precision(self) -> AbstractContextManager[None]:
        return torch.autocast(self.device.type, enabled=False)

    def encode(self, pixel_values: torch.Tensor) -> WallarooVQOutput:
        """Encodes images.

        Args:
            pixel_values: `(B, 3, H, W)` in [-1, 1]; H and W multiples of `config.image_token_size`.

        Returns:
            `WallarooVQOutput` with `rows = H / image_token_size` and `cols = W / image_token_size`.

        Raises:
            ValueError: for another shape.
        """
        size = self.config.image_token_size
        height, width = pixel_values.shape[-2:] if pixel_values.ndim == 4 else (1, 1)
        if height % size or width % size:
            raise ValueError(
                f"Pixels of shape {tuple(pixel_values.shape)} were given, but the image tokenizer takes "
                f"(B, 3, H, W) with H and W multiples of {size}; resize or crop first."
            )
        with self._full_precision():
            weight = self.quant_conv.weight
            pixel_values = pixel_values.to(device=None if weight.is_meta else weight.device, dtype=weight.dtype)
            latents = self.quant_conv(self.encoder(pixel_values)).permute(0, 2, 3, 1)  # (B, rows, cols, embed_dim)
            latents = F.normalize(latents, dim=-1)
            return WallarooVQOutput(image_tokens=self.quantize(latents), latents=latents)

    def decode(self, image_tokens: torch.Tensor) -> torch.Tensor:
        """Decodes codes `(B, rows, cols)` to pixels `(B, 3, H, W)`, float32, around [-1, 1] and unclamped.

        Raises:
            ValueError: for another shape.
        """
        if image_tokens.ndim != 3:
            raise ValueError(
                f"Image tokens of shape {tuple(image_tokens.shape)} were given, but `decode` takes (B, rows, cols)."
            )
        with self._full_precision():
            quantized = self.codebook_lookup(image_tokens.to(self.device)).permute(0, 3, 1, 2)
            return self.decoder(self.post_quant_conv(quantized))

    def codebook_lookup(self, image_tokens: torch.Tensor) -> torch.Tensor:
        """Unit vectors of codes: `(...)` int64 to `(..., embed_dim)` float32."""
        return self.quantize.lookup(image_tokens)

    def forward(self, pixel_values: torch.Tensor) -> WallarooVQOutput:
        """Same as [`~WallarooVQModel.encode`]."""
        return self.encode(pixel_values)
