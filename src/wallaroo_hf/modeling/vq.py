"""The frozen image tokenizer: pixels to codes, codes to pixels.

Encoder and decoder are transformers' Janus VQ-VAE (the same architecture as LlamaGen's VQ-16). The quantizer is ours:
LlamaGen normalises both the latents and the codebook, and its images need not be square.
"""

from collections.abc import Callable
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
# Codes (of whole images) that go through encoder or decoder at a time: one image of 512x512, or four of 256x256.
# At full size the decoder then holds 385 MiB of activations at most and the encoder 555 MiB (docs/memory.md).
_TOKENS_AT_ONCE = 1024


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
        every_code = torch.arange(self.embedding.num_embeddings, device=latents.device)
        codebook = self.lookup(every_code)  # (codes, embed_dim); not `embedding.weight`, which may be offloaded
        flat = latents.reshape(-1, latents.shape[-1])
        # between unit vectors the largest dot product is the smallest distance
        indices = [(rows @ codebook.T).argmax(dim=-1) for rows in flat.split(_ROWS_AT_ONCE)]
        return torch.cat(indices).view(latents.shape[:-1])

    def lookup(self, image_tokens: torch.Tensor) -> torch.Tensor:
        """Unit vectors of codes: `(...)` to `(..., embed_dim)`."""
        return F.normalize(self.embedding(image_tokens), dim=-1)


class _GroupNorm(nn.GroupNorm):
    """Also of groups of one number (an image of one code, as many groups as channels), which torch refuses in a batch of
    one image, and of no other."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps, torch.backends.cudnn.enabled)


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
        for module in self.modules():
            if isinstance(module, nn.GroupNorm):
                module.num_groups = config.norm_num_groups  # Janus's blocks always build 32
                module.__class__ = _GroupNorm
        self.post_init()

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "WallarooVQModel":
        """Follows every move, but no cast: `fn` is what `.to()`, `.cuda()`, `.half()` and the like map over weights."""

        def keep_dtype(tensor: torch.Tensor) -> torch.Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_dtype, recurse)

    def encode(self, pixel_values: torch.Tensor) -> WallarooVQOutput:
        """Encodes images, a few at a time.

        Args:
            pixel_values: `(B, 3, H, W)` in [-1, 1]; H and W multiples of `config.image_token_size`.

        Returns:
            `WallarooVQOutput` with `rows = H / image_token_size` and `cols = W / image_token_size`.

        Raises:
            ValueError: for another shape.
        """
        return self(pixel_values)

    def decode(self, image_tokens: torch.Tensor) -> torch.Tensor:
        """Decodes codes `(B, rows, cols)` to pixels `(B, 3, H, W)`, float32, around [-1, 1] and unclamped.

        A few images at a time go through the decoder, so a larger batch costs no more than its pixels.

        Raises:
            ValueError: for another shape.
        """
        return self(image_tokens=image_tokens)

    def codebook_lookup(self, image_tokens: torch.Tensor) -> torch.Tensor:
        """Unit vectors of codes: `(...)` int64 to `(..., embed_dim)` float32."""
        return self(image_tokens=image_tokens, lookup=True)

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        image_tokens: torch.Tensor | None = None,
        lookup: bool = False,
    ) -> WallarooVQOutput | torch.Tensor:
        """The one way in for all three: `encode`s pixels, `decode`s codes, or with `lookup` looks them up.

        accelerate and FSDP fetch weights and move inputs in hooks around `forward`, so nothing here goes past it.

        Raises:
            ValueError: unless one of pixels and codes is given, and for their wrong shapes.
        """
        if image_tokens is None and pixel_values is not None:
            return self._encode(self._to_weights(pixel_values))
        if image_tokens is None or pixel_values is not None:
            raise ValueError("The image tokenizer takes either `pixel_values` or `image_tokens`; give one of them.")
        image_tokens = self._to_weights(image_tokens)
        return self.quantize.lookup(image_tokens) if lookup else self._decode(image_tokens)

    def _to_weights(self, tensor: torch.Tensor) -> torch.Tensor:
        """Moves a tensor to the weights, unless they are offloaded: then a hook has already moved it."""
        weight = self.quant_conv.weight
        return tensor if weight.is_meta else tensor.to(weight.device)

    def _encode(self, pixel_values: torch.Tensor) -> WallarooVQOutput:
        size = self.config.image_token_size
        height, width = pixel_values.shape[-2:] if pixel_values.ndim == 4 else (1, 1)
        if height % size or width % size:
            raise ValueError(
                f"Pixels of shape {tuple(pixel_values.shape)} were given, but the image tokenizer takes "
                f"(B, 3, H, W) with H and W multiples of {size}; resize or crop first."
            )
        with torch.autocast(pixel_values.device.type, enabled=False):
            parts = pixel_values.to(self.quant_conv.weight.dtype).split(_images_at_once(height // size, width // size))
            latents = torch.cat([self.quant_conv(self.encoder(part)) for part in parts])  # (B, embed_dim, rows, cols)
            latents = F.normalize(latents.permute(0, 2, 3, 1), dim=-1)
            return WallarooVQOutput(image_tokens=self.quantize(latents), latents=latents)

    def _decode(self, image_tokens: torch.Tensor) -> torch.Tensor:
        if image_tokens.ndim != 3:
            raise ValueError(
                f"Codes of shape {tuple(image_tokens.shape)} were given, but `decode` takes (B, rows, cols)."
            )
        with torch.autocast(image_tokens.device.type, enabled=False):
            quantized = self.quantize.lookup(image_tokens).permute(0, 3, 1, 2)  # (B, embed_dim, rows, cols)
            parts = quantized.split(_images_at_once(*image_tokens.shape[1:]))
            return torch.cat([self.decoder(self.post_quant_conv(part)) for part in parts])


def _images_at_once(rows: int, cols: int) -> int:
    """How many images of that many codes go through encoder or decoder together."""
    return max(1, _TOKENS_AT_ONCE // max(1, rows * cols))
