"""Choosing codes: greedily, or by Gumbel-max with noise fixed per image and position."""

from collections import deque
from collections.abc import Sequence

import numpy as np
import torch

# Noise is made for this many positions at a time whatever the image size, so that position k of a seed always sees the
# same numbers.
POSITIONS_PER_BLOCK = 64


def kth_largest(scores: torch.Tensor, k: int) -> torch.Tensor:
    """The k-th largest of each row, NaN counting as the largest: `(B, V)` float32 to `(B, 1)`.

    On CPU numpy finds it, without sorting and with vector instructions, about ten times as fast as `torch.topk`.
    """
    if scores.device.type == "cpu":
        return torch.from_numpy(np.partition(scores.numpy(), -k, axis=-1)[:, -k, None])
    return torch.topk(scores, k, sorted=False).values.amin(dim=-1, keepdim=True)


def first_largest(scores: torch.Tensor) -> torch.Tensor:
    """Where each row's maximum is, the first one if there are several: `(B, V)` to `(B,)` int64."""
    if scores.device.type == "cpu" and scores.dtype == torch.float32:  # numpy's is vectorised, torch's is not
        return torch.from_numpy(scores.numpy().argmax(axis=-1))
    return scores.argmax(dim=-1)


class GumbelNoise:
    r"""Gumbel noise for each code position of each image.

    Generator i yields `codebook_size` uniforms per position, in raster order, as `torch.rand(64, codebook_size)` for 64
    positions at a time (float32, on the generator's own device, then moved); noise is `-log(-log u)`. A code is the
    argmax of filtered logits plus noise, which samples exactly the filtered distribution and makes a code a function of
    logits and noise alone: the same seed gives the same image alone or in any batch.

    Args:
        generator: one for all images, one per image, or None for torch's global generator.
        num_images: number of images.
        codebook_size: numbers per position.
        device: where noise is used.

    Raises:
        ValueError: if there are not as many generators as images.
    """

    def __init__(
        self,
        generator: torch.Generator | Sequence[torch.Generator] | None,
        num_images: int,
        codebook_size: int,
        device: torch.device,
    ) -> None:
        self._generators = _one_per_image(generator, num_images)
        self._noise = torch.empty(num_images, POSITIONS_PER_BLOCK, codebook_size, device=device)
        self._rows = torch.arange(num_images, device=device)
        self._passed = [0] * num_images  # code positions that each image has passed

    def next(self, is_code: Sequence[bool], code_positions: torch.Tensor) -> torch.Tensor:
        """Noise `(B, codebook_size)` for the code that each row decides now; rows that decide none get stale numbers.

        Args:
            is_code: which rows decide a code.
            code_positions: `(B,)`, the raster index of that code.
        """
        for row, decides in enumerate(is_code):
            if not decides:
                continue
            if self._passed[row] % POSITIONS_PER_BLOCK == 0:
                self._refill(row)
            self._passed[row] += 1
        if all(is_code) and len(set(self._passed)) == 1:  # all at one position: no gathering
            return self._noise[:, (self._passed[0] - 1) % POSITIONS_PER_BLOCK]
        return self._noise[self._rows, code_positions % POSITIONS_PER_BLOCK]

    def _refill(self, row: int) -> None:
        _make_noise(self._generators[row], self._noise[row])


class NoiseAhead:
    r"""The same noise as [`GumbelNoise`], number for number, for code positions that have not come up yet.

    Images of a generator of their own keep what their window needs. Images that share one keep all of their noise,
    because its blocks must be made in the order in which images drawn code by code would come to them.

    Args:
        generator, codebook_size, device: as there.
        is_code: of the [`DrawingPlan`], which says that order.
        reach: how many codes in a row are needed at one time.

    Raises:
        ValueError: if there are not as many generators as images.
    """

    def __init__(
        self,
        generator: torch.Generator | Sequence[torch.Generator] | None,
        codebook_size: int,
        device: torch.device,
        is_code: Sequence[Sequence[bool]],
        reach: int,
    ) -> None:
        num_images = len(is_code[0])
        self._generators = _one_per_image(generator, num_images)
        self._waiting: dict[int, deque[tuple[int, int]]] = {id(item): deque() for item in self._generators}
        self._made = [0] * num_images  # code positions whose noise is there
        codes = [0] * num_images
        for decides in is_code:
            for row in (row for row, decided in enumerate(decides) if decided):
                if codes[row] % POSITIONS_PER_BLOCK == 0:
                    self._waiting[id(self._generators[row])].append((row, codes[row]))
                codes[row] += 1
        room = max(codes) if len(self._waiting) < num_images else reach + POSITIONS_PER_BLOCK
        blocks = -(-room // POSITIONS_PER_BLOCK)
        self._noise = torch.empty(num_images, blocks * POSITIONS_PER_BLOCK, codebook_size, device=device)
        self._rows = torch.arange(num_images, device=device)[:, None]

    def at(self, codes: torch.Tensor, ends: Sequence[int]) -> torch.Tensor:
        """Noise `(B, k, codebook_size)` of code positions `(B, k)`.

        Args:
            codes: raster indices; in each row none is more than `reach` before the largest that was ever asked for.
            ends: per row, one more than its largest.
        """
        for row, end in enumerate(ends):
            waiting = self._waiting[id(self._generators[row])]
            while self._made[row] < end:
                image, start = waiting.popleft()
                first = start % self._noise.shape[1]
                _make_noise(self._generators[image], self._noise[image, first : first + POSITIONS_PER_BLOCK])
                self._made[image] = start + POSITIONS_PER_BLOCK
        return self._noise[self._rows, codes % self._noise.shape[1]]


def _one_per_image(
    generator: torch.Generator | Sequence[torch.Generator] | None, num_images: int
) -> list[torch.Generator | None]:
    if generator is None or isinstance(generator, torch.Generator):
        return [generator] * num_images
    if len(generator) != num_images:
        raise ValueError(
            f"`generator` has {len(generator)} generators, but {num_images} images are drawn; give one, or "
            "one per image (prompts times `num_return_sequences`)."
        )
    return list(generator)


def _make_noise(generator: torch.Generator | None, noise: torch.Tensor) -> None:
    """Fills a block `(64, codebook_size)`."""
    if generator is None or generator.device == noise.device:
        torch.rand(noise.shape, generator=generator, out=noise)
    else:
        noise.copy_(torch.rand(noise.shape, generator=generator, device=generator.device))
    noise.log_().neg_().log_().neg_()
