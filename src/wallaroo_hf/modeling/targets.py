"""Images to codes, and the codes of those to learn in the places of `<|generate_image_pad|>`."""

from collections.abc import Sequence

import torch
from transformers.utils import torch_compilable_check

from .adapters import fill_missing
from .configuration import WallarooConfig
from .vq import WallarooVQModel


class TargetsMixin:
    """What [`WallarooModel`] does before it embeds rows."""

    config: WallarooConfig
    vq_model: WallarooVQModel

    @torch.no_grad()
    def encode_images(self, pixels: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Encodes images of any sizes with the frozen image tokenizer.

        Args:
            pixels: one `(3, H, W)` per image, in [-1, 1].

        Returns:
            Codes `(rows * cols,)` and latents `(rows * cols, embed_dim)` of each, in raster order.
        """
        tokens, latents = [], []
        for image in pixels:
            encoded = self.vq_model(image.unsqueeze(0))
            tokens.append(encoded.image_tokens.flatten())
            latents.append(encoded.latents.flatten(0, 2))
        return tokens, latents

    def place_targets(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor | None,
        target_pixel_values: Sequence[torch.Tensor] | None,
        target_image_tokens: Sequence[torch.Tensor | None] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Replaces `<|generate_image_pad|>` in ids and labels by the codes of the images to learn.

        Args: see `WallarooForConditionalGeneration.forward`.

        Raises:
            ValueError: if placeholders and images do not match in number, or a code is none of the image tokenizer's.
        """
        placeholder = self.config.generate_image_token_id
        slots = input_ids == placeholder
        if target_pixel_values is None and target_image_tokens is None:
            torch_compilable_check(
                ~slots.any(),
                "The rows hold <|generate_image_pad|> placeholders, but there is neither `target_pixel_values` nor "
                "`target_image_tokens`; pass them as the processor gave them, or put codes in place (`vocab_size + "
                "index`).",
            )
            return input_ids, labels
        codes = self._target_codes(target_pixel_values, target_image_tokens).to(input_ids.device)
        names = "`target_pixel_values`" if target_image_tokens is None else "`target_image_tokens`"
        torch_compilable_check(
            slots.sum() == len(codes),
            lambda: (
                f"The rows have {int(slots.sum())} <|generate_image_pad|> placeholders, but {names} has {len(codes)} "
                "codes; pass exactly the processor's tensors."
            ),
        )
        filled = input_ids.masked_scatter(slots, codes + self.config.text_config.vocab_size)
        if labels is not None:
            labels = torch.where(labels == placeholder, filled, labels)
        return filled, labels

    def _target_codes(
        self,
        target_pixel_values: Sequence[torch.Tensor] | None,
        target_image_tokens: Sequence[torch.Tensor | None] | None,
    ) -> torch.Tensor:
        """Codes `(N,)` of all targets in order: those given, and the others from their pixels."""
        encoded = self.encode_images([] if target_pixel_values is None else target_pixel_values)[0]
        if target_image_tokens is None:
            return torch.cat(encoded)
        filled = fill_missing(target_image_tokens, encoded, "targets", "target_image_tokens", "target_pixel_values")
        codes = torch.cat([tokens.flatten().to(self.vq_model.device, torch.int64) for tokens in filled])
        codebook_size = self.config.vq_config.codebook_size
        torch_compilable_check(
            ((codes >= 0) & (codes < codebook_size)).all(),
            lambda: (
                f"`target_image_tokens` holds codes from {int(codes.min())} to {int(codes.max())}, but the image tokenizer "
                f"has {codebook_size}; encode the rows again (`wallaroo encode`)."
            ),
        )
        return codes
