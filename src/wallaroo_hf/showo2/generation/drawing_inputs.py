"""What drawings begin with, looked at before anything is computed: prompts, sizes and noise; each fault is one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...files.whole_text import printable
from ..checked_inputs import check_latents

__all__ = ["check_prompts", "check_size", "draw_noise", "read_count", "read_noise", "read_number", "read_sizes"]

PREPARE = 'prepare them with `processor(..., generation_mode="image")`'


def read_number(name: str, value: Any) -> float:
    """A setting that is a number.

    Args:
        name: of the setting.
        value: as given.

    Raises:
        ValueError: for anything else, text and truth values among them.
    """
    try:
        if isinstance(value, (str, bytes, bool)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"`{name}` is {printable(repr(value), 60)}, but must be a number.") from error


def read_count(name: str, value: Any) -> int:
    """A setting that is a whole number from 1 on.

    Args:
        name: of the setting.
        value: as given.

    Raises:
        ValueError: for anything else.
    """
    number = read_number(name, value)
    if not 1 <= number < float("inf") or number != int(number):
        raise ValueError(f"`{name}` is {number:g}, but must be a whole number from 1 on.")
    return int(number)


def check_prompts(batch: Mapping[str, Any], start: int, may_answer: bool = False) -> None:
    """Makes sure that rows, and null rows where given, end where an image begins, and that masks fit them.

    Args:
        batch: see [`FlowGroup`].
        start: the id that opens an image.
        may_answer: rows may go on with text, and so end as they like; null rows may not.

    Raises:
        ValueError: if not.
    """
    rows = len(batch["input_ids"])
    for prefix in ("", "negative_"):
        ids, mask = batch.get(f"{prefix}input_ids"), batch.get(f"{prefix}attention_mask")
        if ids is None:
            if mask is not None:
                raise ValueError(f"There is a `{prefix}attention_mask` without `{prefix}input_ids`; give both.")
            continue
        if ids.dim() != 2 or len(ids) != rows:
            raise ValueError(
                f"`{prefix}input_ids` are of shape {tuple(ids.shape)}, but must be ({rows if prefix else 'B'}, T), one row "
                f"per prompt; {PREPARE}."
            )
        if mask is not None and mask.shape != ids.shape:
            raise ValueError(
                f"`{prefix}attention_mask` is of shape {tuple(mask.shape)}, but `{prefix}input_ids` are of "
                f"{tuple(ids.shape)}; {PREPARE}."
            )
        if may_answer and not prefix:
            continue
        if not ids.shape[1] or not bool((ids[:, -1] == start).all()):
            raise ValueError(
                f"Rows of `{prefix}input_ids` must be left-padded and end with the token that opens an image (id {start}); "
                f"{PREPARE}."
            )


def read_sizes(image_size: Any, rows: int, multiple: int) -> list[tuple[int, int]]:
    """Heights and widths in pixels of the images of rows.

    Args:
        image_size: `(rows, 2)`, whole numbers.
        rows: how many.
        multiple: edge of a token in pixels.

    Raises:
        ValueError: for another shape, and for sizes that are not of whole tokens.
    """
    try:
        sizes = torch.as_tensor(image_size)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"`image_size` is no table of numbers ({error}); give height and width of each row."
        ) from error
    if tuple(sizes.shape) != (rows, 2) or sizes.is_floating_point():
        raise ValueError(
            f"`image_size` has the type {sizes.dtype} and the shape {tuple(sizes.shape)}, but must be whole numbers of "
            f"shape ({rows}, 2): height and width of each row in pixels."
        )
    found = [(int(height), int(width)) for height, width in sizes.tolist()]
    for size in found:
        check_size(size, multiple)
    return found


def check_size(size: Sequence[int], multiple: int) -> None:
    """Refuses a size in pixels that is not one of whole tokens.

    Args:
        size: height and width.
        multiple: edge of a token in pixels.

    Raises:
        ValueError: for such a size.
    """
    if any(edge < multiple or edge % multiple for edge in size):
        raise ValueError(
            f"An image of {size[0]}x{size[1]} was asked for, but edges must be multiples of {multiple} pixels."
        )


def read_noise(noise: Any, count: int, config: Any) -> list[torch.Tensor]:
    """Noise that was given, float32.

    Args:
        noise: one `(C, h, w)` per image, or all of them as one tensor.
        count: of images.
        config: the model's.

    Raises:
        ValueError: for anything else.
    """
    if not isinstance(noise, (Sequence, torch.Tensor)) or len(noise) != count:
        had = f"{len(noise)} tensors" if isinstance(noise, (Sequence, torch.Tensor)) else f"a {type(noise).__name__}"
        raise ValueError(f"There are {count} images, but {had} in `noise`; give one latent (C, h, w) per image.")
    for one in noise:
        check_latents(one, config)
        if one.dim() != 3:
            raise ValueError(
                f"`noise` holds a tensor of size {tuple(one.shape)}, but an image's is ({config.latent_channels}, h, w)."
            )
        if not bool(one.isfinite().all()):
            raise ValueError("`noise` holds numbers that are not finite; draw it anew, such as by `torch.randn`.")
    return [one.float() for one in noise]


def draw_noise(
    sizes: Sequence[tuple[int, int]], generators: Sequence[torch.Generator] | torch.Generator | None, model: Any
) -> list[torch.Tensor]:
    """Noise `(C, h, w)` of images, float32, on the CPU, drawn in their order.

    Args:
        sizes: of the images, in pixels.
        generators: one for all, or one per image; None = torch's own.
        model: whose latents they are.

    Raises:
        ValueError: for another number of generators, or something else than generators.
    """
    is_listed = isinstance(generators, Sequence)
    own: list[Any] = list(generators) if is_listed else [generators] * len(sizes)  # type: ignore[arg-type]
    if len(own) != len(sizes):
        raise ValueError(f"There are {len(sizes)} images, but {len(own)} generators; give one, or one each.")
    edge, channels = model.vae.spatial_factor, model.config.latent_channels
    noise = []
    for (height, width), one in zip(sizes, own, strict=True):
        if not isinstance(one, (torch.Generator, type(None))):
            raise ValueError(
                f"A generator is a {type(one).__name__}, but must be a `torch.Generator`; make it by "
                "`torch.Generator().manual_seed(seed)`."
            )
        device = "cpu" if one is None else one.device
        noise.append(torch.randn(channels, height // edge, width // edge, generator=one, device=device).cpu())
    return noise
