"""The guidance branches: taken from the processor's tensors, brought to one length and one device, or split into rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

# What the processor gives of a branch's pictures; the model's `embed_prompt` takes the same.
_PICTURES = ("pixel_values", "image_grid_thw", "source_pixel_values")


@dataclass(frozen=True)
class Branch:
    """One guidance branch: a prompt per row, left-padded, with its pictures.

    Attributes:
        input_ids, attention_mask: `(B, L)`.
        pictures: those there are of `pixel_values` and `image_grid_thw` (NaViT patches of all rows, in order) and
            `source_pixel_values` (sources of all rows, in order).
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    pictures: Mapping[str, Any] = field(default_factory=dict)

    def tensors(self, prefix: str) -> dict[str, Any]:
        """The processor's tensors of this branch again, as [`take_branch`] takes them."""
        named = {"input_ids": self.input_ids, "attention_mask": self.attention_mask, **self.pictures}
        return {f"{prefix}{name}": value for name, value in named.items()}

    @property
    def image_grid_thw(self) -> torch.Tensor | None:
        """`(images, 3)`, or None without pictures to understand."""
        return self.pictures.get("image_grid_thw")


def take_branch(kwargs: dict[str, Any], prefix: str) -> Branch | None:
    """One guidance branch out of the processor's tensors, or None."""
    ids, mask, _ = (
        kwargs.pop(f"{prefix}{name}", None) for name in ("input_ids", "attention_mask", "mm_token_type_ids")
    )
    pictures = {name: kwargs.pop(f"{prefix}{name}", None) for name in _PICTURES}
    sources = pictures["source_pixel_values"]
    if isinstance(sources, (list, tuple)):
        # transformers' pipelines batch the lists of several calls as lists in a list
        nested = [entry if isinstance(entry, (list, tuple)) else [entry] for entry in sources]
        pictures["source_pixel_values"] = [image for entry in nested for image in entry]
    if ids is None:
        return None
    pictures = {name: value for name, value in pictures.items() if value is not None}
    return Branch(ids, torch.ones_like(ids) if mask is None else mask, pictures)


def guidance_branches(
    conditional: Branch,
    null: Branch | None,
    unprompted: Branch | None,
    scale: float,
    source_scale: float | None,
) -> tuple[list[Branch], list[float]]:
    """The branches that run, from the most to the least conditioned, and the scale of each step between them.

    Args:
        conditional, null, unprompted: as the processor prepared them: all there is; no words; no words but the source.
        scale: of the last step, off at 1 and below.
        source_scale: of the step to the source, for two-scale guidance; None = off.

    Raises:
        ValueError: if a branch is needed that the processor was not asked for, or has another number of rows.
    """
    branches, scales = [conditional], []
    if source_scale is not None:
        if null is None or unprompted is None:
            raise ValueError(
                f"Two-scale guidance (source scale {source_scale}) needs the branch without instruction; prepare the "
                "inputs with `processor(..., source_guidance=True)` and pass all of its tensors."
            )
        branches, scales = [conditional, unprompted, null], [scale, source_scale]
    elif scale > 1:
        if null is None:
            raise ValueError(
                f"Guidance (scale {scale}) needs the null prompt, but there is no `negative_input_ids`; pass all "
                "tensors that the processor returned, or guidance_scale=1."
            )
        branches, scales = [conditional, null], [scale]
    rows = len(conditional.input_ids)
    for branch in branches:
        if len(branch.input_ids) != rows:
            raise ValueError(
                f"The guidance branches have {rows} and {len(branch.input_ids)} rows, but must have one row per prompt "
                "each; pass the processor's tensors together and unchanged."
            )
    return branches, scales


def align(branches: Sequence[Branch], pad_token_id: int, device: torch.device) -> list[Branch]:
    """The branches left-padded to the longest and moved to a device (sources in a list are moved when they are encoded)."""
    longest = max(branch.input_ids.shape[1] for branch in branches)
    aligned = []
    for branch in branches:
        missing = longest - branch.input_ids.shape[1]
        ids = torch.nn.functional.pad(branch.input_ids, (missing, 0), value=pad_token_id)
        mask = torch.nn.functional.pad(branch.attention_mask, (missing, 0), value=0)
        aligned.append(_moved(ids, mask, branch.pictures, device))
    return aligned


def split_rows(model: Any, branch: Branch) -> list[Branch]:
    """Each row of a branch alone, on the model's device: its ids without padding, its own pictures."""
    config = model.config
    grids, patches = branch.pictures.get("image_grid_thw"), branch.pictures.get("pixel_values")
    sources = branch.pictures.get("source_pixel_values")
    image = patch = source = 0  # the next of each
    rows = []
    for ids, mask in zip(branch.input_ids, branch.attention_mask, strict=True):
        own = ids[mask.bool()].unsqueeze(0)
        num_images = int((own == config.vision_start_token_id).sum())
        num_sources = int((own == config.pixel_start_token_id).sum())
        pictures: dict[str, Any] = {}
        if grids is not None and num_images:
            pictures["image_grid_thw"] = grids[image : image + num_images]
            if patches is not None:
                count = int(pictures["image_grid_thw"].prod(dim=-1).sum())
                pictures["pixel_values"] = patches[patch : patch + count]
                patch += count
        if sources is not None and num_sources:
            pictures["source_pixel_values"] = sources[source : source + num_sources]
        rows.append(_moved(own, torch.ones_like(own), pictures, model.device))
        image, source = image + num_images, source + num_sources
    return rows


def _moved(ids: torch.Tensor, mask: torch.Tensor, pictures: Mapping[str, Any], device: torch.device) -> Branch:
    moved = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in pictures.items()}
    return Branch(ids.to(device), mask.to(device), moved)
