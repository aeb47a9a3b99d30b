"""Which pictures of a row Wallaroo's image tokenizer encodes ahead, and at which size."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from ..layout.grid import check_size
from ..modeling.vq import WallarooVQModel
from ..processing.drawing_requests import pick_chat_size, pick_size
from ..processing.processor import WallarooProcessor
from .data.training_rows import INTERLEAVED
from .vq.vq_loading import tokenizer_hash

__all__ = ["WallarooRowEncoder"]

Opens = Callable[[], Image.Image]


class WallarooRowEncoder:
    """See [`wallaroo_hf.families.training_kit.RowEncoder`]: codes of pictures to draw, latents of pictures to edit.

    Args:
        vq_model: the image tokenizer, on the device to compute on.
        processor: chooses sizes; None where only the fingerprint is asked for.
    """

    columns: Mapping[str, tuple[str, int]] = {"image_tokens": ("int32", 2), "source_latents": ("float32", 3)}

    def __init__(self, vq_model: WallarooVQModel, processor: WallarooProcessor | None) -> None:
        self.vq_model, self._processor = vq_model, processor

    @property
    def processor(self) -> WallarooProcessor:
        """What chooses sizes."""
        assert self._processor is not None
        return self._processor

    @property
    def size_multiple(self) -> int:
        """Edge of an image token in pixels."""
        return self.processor.image_token_size

    @property
    def fingerprint(self) -> str:
        """See [`tokenizer_hash`]."""
        return tokenizer_hash(self.vq_model)

    @property
    def sizes(self) -> list[list[int]]:
        """The processor's buckets."""
        return [list(bucket) for bucket in self.processor.buckets]

    def plan(
        self, row: Mapping[str, Any], task: str, drawn: Sequence[Opens], shown: Sequence[Opens]
    ) -> tuple[tuple[int, int] | None, list[tuple[str, Any]]]:
        """Sizes are chosen as the processor does: a row's `height` and `width`, else the bucket nearest to the picture, or
        in interleaved rows the most square one; images to edit are brought to the same size.

        Args:
            row: as it was read.
            task: its task.
            drawn: open the pictures of the assistant.
            shown: open the others.

        Raises:
            ValueError: for sizes that cannot be drawn, and pictures that cannot be opened.
        """
        # a chat in the manner of auto mode has sources also where it only answers
        if not drawn and task != INTERLEAVED:
            return None, []
        targets, sources = ([opens() for opens in pictures] for pictures in (drawn, shown))
        buckets, asked = self.processor.buckets, (row.get("height"), row.get("width"), None)
        if task == INTERLEAVED:
            size = pick_chat_size(buckets, *asked, sources if self.processor.has_editing else ())
        else:
            size = pick_size(buckets, *asked, targets[0])
        check_size(*size, self.processor.image_token_size, plain_grid=not self.processor.line_breaks)
        to_pixels = self.processor.image_processor.to_vq_pixels
        pictures = [("image_tokens", to_pixels(target, *size)) for target in targets]
        return size, pictures + [("source_latents", to_pixels(source, *size)) for source in sources]

    def encode(self, pixels: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Codes `(B, rows, cols)` and latents `(B, rows, cols, embed_dim)`."""
        encoded = self.vq_model.encode(pixels)
        return {"image_tokens": encoded.image_tokens, "source_latents": encoded.latents}

    def reconstruct(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pictures `(B, 3, H, W)` through the image tokenizer and back."""
        decoded: torch.Tensor = self.vq_model.decode(self.vq_model.encode(pixels).image_tokens)
        return decoded
