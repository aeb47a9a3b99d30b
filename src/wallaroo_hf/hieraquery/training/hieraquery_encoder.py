"""What of a row is encoded ahead: latents of the drawn picture at every scale, and what is seen in pictures."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from .drawn_rows import RowSizes, prompt_patches
from .picture_side import PictureSide

__all__ = ["HieraQueryRowEncoder"]

Opens = Callable[[], Image.Image]
LATENTS, FEATURES, PROMPT = "scale_latents", "vision_features", "prompt_features"


class HieraQueryRowEncoder:
    """See [`wallaroo_hf.families.training_kit.RowEncoder`]: of the drawn picture its latents, coarse to fine, and what the
    vision encoder sees in it; of the one that is shown what the language model sees, and of a row that shows none what it
    would see of the drawn one, should that be reconstructed.

    Args:
        side: on the device to compute on; None = sizes alone are planned.
        processor: chooses sizes; None where only the fingerprint is asked for.
    """

    columns: Mapping[str, tuple[str, int]] = {
        LATENTS: ("float16", 3),
        FEATURES: ("float16", 3),
        PROMPT: ("float16", 3),
    }

    def __init__(self, side: PictureSide | None, processor: Any) -> None:
        self._side, self.processor = side, processor

    @property
    def side(self) -> PictureSide:
        """What encodes.

        Raises:
            ValueError: if there is none.
        """
        if self._side is None:
            raise ValueError("This encoder has no image codec, so it only plans; give it one to encode pictures.")
        return self._side

    @property
    def size_multiple(self) -> int:
        """Of edges of pictures, in pixels."""
        return int(self.processor.size_multiple)

    @property
    def fingerprint(self) -> str:
        """See [`PictureSide.fingerprint`]."""
        return self.side.fingerprint()

    @property
    def sizes(self) -> list[list[int]]:
        """Those that are drawn."""
        return [list(size) for size in self.processor.drawing_sizes]

    def plan(
        self, row: Mapping[str, Any], task: str, drawn: Sequence[Opens], shown: Sequence[Opens]
    ) -> tuple[tuple[int, int] | None, list[tuple[str, Any]]]:
        """Sizes are chosen as in training.

        Args:
            row: as it was read.
            task: its task.
            drawn: opens the picture of the assistant.
            shown: opens the other one.

        Raises:
            ValueError: for pictures that cannot be opened, and sizes that do not fit.
        """
        if task not in ("generation", "editing"):
            return None, []
        target = drawn[0]()
        height, width = size = RowSizes(self.processor).size(row, target)
        if self._side is None:
            return size, []
        read = self.processor.image_processor
        pixels = read.to_pixels(target, height, width)
        coarse_to_fine = self.side.at_scales(torch.from_numpy(pixels)[None])
        planned: list[tuple[str, Any]] = [(LATENTS, one[0].numpy()) for one in coarse_to_fine]
        # axes of their own: pictures of one shape are encoded together, by one part
        planned.append((FEATURES, pixels[None]))
        source = read.fit_to_size((shown[0] if shown else drawn[0])(), height, width, "crop")
        planned.append((PROMPT, prompt_patches(read, source)[None, None]))
        return size, planned

    def encode(self, pixels: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Latents of pictures `(B, 3, H, W)`, features of `(B, 1, 3, H, W)`, what is seen of patches
        `(B, 1, 1, rows, cols, values)`.
        """
        if pixels.dim() == 4:
            return {LATENTS: self.side.latents(pixels)}
        if pixels.dim() == 5:
            return {FEATURES: self.side.features(pixels[:, 0])}
        return {PROMPT: self.side.shown(pixels[:, 0, 0])}

    def reconstruct(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pictures `(B, 3, H, W)` in [-1, 1] to their latents, as they are kept, and back, float32."""
        return self.side.pixels(self.side.latents(pixels))
