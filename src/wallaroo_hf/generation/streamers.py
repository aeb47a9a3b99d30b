"""Streamers for drawing; any transformers streamer works too."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from transformers.generation.streamers import BaseStreamer

__all__ = ["ImageStreamer"]


class ImageStreamer(BaseStreamer):
    r"""Follows images while they are drawn: progress per code, a report after each row, previews, and a way to stop.

    Args:
        model: the model that draws; its image tokenizer decodes previews.
        processor: turns decoded pixels into pictures.
        target_grid_hw: `(B, 2)` rows and columns, as the processor gives them; with `num_return_sequences` each counts for
            all of its copies. Default: `generate` tells it.
        on_row: called as `on_row(streamer, image, rows)` when row number `rows` of image `image` (counted from 0) is
            complete. Returning False stops the drawing, as [`~ImageStreamer.stop`] does.
        on_code: called after each new token as `on_code(counts)`, with the number of codes of each image.

    Example:

    ```python
    def show(streamer, image, rows):
        streamer.preview(image).save("preview.png")

    streamer = ImageStreamer(model, processor, on_row=show)
    tokens = model.generate(**inputs, generation_mode="image", streamer=streamer)
    ```
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        target_grid_hw: torch.Tensor | Sequence[Sequence[int]] | None = None,
        on_row: Callable[["ImageStreamer", int, int], bool | None] | None = None,
        on_code: Callable[[list[int]], None] | None = None,
    ) -> None:
        self.model, self.processor = model, processor
        self.grids: list[tuple[int, int]] = []
        self._is_told = target_grid_hw is None
        if target_grid_hw is not None:
            self.grids = [(int(rows), int(cols)) for rows, cols in torch.as_tensor(target_grid_hw).tolist()]
        self.on_row, self.on_code = on_row, on_code
        self.codes: list[list[int]] = []
        self.stopped = False
        self._drawing = False

    def expect(self, grids: Sequence[tuple[int, int]]) -> None:
        """Takes `(rows, cols)` of each image before the first token; `generate` calls it. What was given stays."""
        if self._is_told:
            self.grids = list(grids)

    def put(self, value: torch.Tensor) -> None:
        """Takes the prompts `(B, L)` first, then the next ids `(B,)`."""
        if not self._drawing:
            self._begin(len(value))
            return
        first_code = self.model.config.text_config.vocab_size
        finished = []
        for image, token in enumerate(value.tolist()):
            if token in self._starts:
                self.codes[image] = []  # another image begins (auto mode)
            if token < first_code:
                continue
            self.codes[image].append(token - first_code)
            rows, rest = divmod(len(self.codes[image]), self.grid(image)[1])
            if rest == 0:
                finished.append((image, rows))
        if self.on_code is not None:
            self.on_code([len(codes) for codes in self.codes])
        for image, rows in finished:
            if self.on_row is not None and self.on_row(self, image, rows) is False:
                self.stop()

    def _begin(self, num_images: int) -> None:
        if not self.grids:
            raise ValueError("The streamer was not told the images' sizes; give it the processor's `target_grid_hw`.")
        if num_images % len(self.grids):
            raise ValueError(
                f"`target_grid_hw` has {len(self.grids)} rows, but {num_images} images are drawn; give the streamer the "
                "processor's `target_grid_hw`."
            )
        self._copies = num_images // len(self.grids)
        self._starts = self.model.config.image_start_token_ids
        self.codes = [[] for _ in range(num_images)]
        self.stopped, self._drawing = False, True

    def end(self) -> None:
        """The drawing is over; the next `put` starts a new one. Codes and previews stay."""
        self._drawing = False

    def stop(self) -> None:
        """Ends the drawing after the current token; what is there can be decoded with `allow_partial=True`."""
        self.stopped = True

    def grid(self, image: int) -> tuple[int, int]:
        """`(rows, cols)` of an image when it is complete."""
        return self.grids[image // self._copies]

    def pixels(self, image: int = 0) -> torch.Tensor | None:
        """The complete rows of an image so far, `(3, H, W)` float32 around [-1, 1], or None before the first one."""
        cols = self.grid(image)[1]
        rows = len(self.codes[image]) // cols if self.codes else 0
        if rows == 0:
            return None
        codes = torch.tensor(self.codes[image][: rows * cols], device=self.model.device).view(1, rows, cols)
        with torch.no_grad():
            return self.model.vq_model.decode(codes)[0]

    def preview(self, image: int = 0) -> Image.Image | None:
        """The complete rows of an image so far as a picture, or None before the first one."""
        pixels = self.pixels(image)
        if pixels is None:
            return None
        return self.processor.post_process_multimodal_output(pixels[None], generation_mode="image")[0]
