"""Which pictures of a row Show-o2's image codec encodes ahead, and at which size: all of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from ...training.data.training_rows import picture_roles
from .codec_alone import CodecAlone, codec_hash
from .noisy_batch import pack_posteriors
from .row_pictures import RowPictures

__all__ = ["ShowO2RowEncoder"]

Opens = Callable[[], Image.Image]
COLUMN = "image_latents"


class ShowO2RowEncoder:
    """See [`wallaroo_hf.families.training_kit.RowEncoder`]: means and log variances of every picture, in order.

    Args:
        codec: on the device to compute on.
        processor: chooses sizes.
    """

    columns: Mapping[str, tuple[str, int]] = {COLUMN: ("float16", 3)}

    def __init__(self, codec: CodecAlone, processor: Any) -> None:
        self.codec, self.processor = codec, processor

    @property
    def pictures(self) -> RowPictures:
        """Reads them."""
        return RowPictures(self.processor)

    @property
    def size_multiple(self) -> int:
        """Edge of an image token in pixels."""
        return int(self.processor.image_token_size)

    @property
    def fingerprint(self) -> str:
        """See [`codec_hash`]."""
        fit = "" if self.processor is None else self.processor.image_processor.fit
        return codec_hash(self.codec, fit)

    @property
    def sizes(self) -> list[list[int]]:
        """Those that are drawn, then those that are seen."""
        both = (*self.processor.drawing_sizes, *self.processor.image_processor.sizes)
        return [list(size) for size in both]

    def plan(
        self, row: Mapping[str, Any], task: str, drawn: Sequence[Opens], shown: Sequence[Opens]
    ) -> tuple[tuple[int, int] | None, list[tuple[str, Any]]]:
        """Sizes are chosen as in training.

        Args:
            row: as it was read.
            task: its task.
            drawn: open the pictures of the assistant.
            shown: open the others.

        Raises:
            ValueError: for pictures that cannot be opened.
        """
        opens = iter(drawn), iter(shown)
        asked = (int(row["height"]), int(row["width"])) if row.get("height") else None
        draws = bool(drawn)
        planned, size = [], None
        for role in picture_roles(row):
            picture = next(opens[role != "assistant"])()
            chosen = self.pictures.size(picture, draws, asked)
            if role == "assistant":
                size = chosen
            planned.append((COLUMN, self.pictures.pixels(picture, chosen, draws)))
        return size, planned

    def encode(self, pixels: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Means and log variances of each token's latents `(B, 2 * channels * patch_size², rows, cols)`."""
        posterior = self._posterior(pixels)
        return {COLUMN: pack_posteriors(posterior, self.codec.config.patch_size)}

    def reconstruct(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pictures `(B, 3, H, W)` to the means of their latents and back."""
        decoded: torch.Tensor = self.codec.vae.decode_latents(self._posterior(pixels).mean)
        return decoded

    def _posterior(self, pixels: torch.Tensor) -> Any:
        device = next(iter(self.codec.state_dict().values())).device
        return self.codec.vae.encode_images(pixels.to(device))
