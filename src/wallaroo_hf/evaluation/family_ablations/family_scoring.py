"""What a trained variant draws: the judge's word on each picture and its parts, and coarse pictures beside fine ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch.nn import functional

from ...families.ablation_contract import FamilyAblation
from ...scenes import CaptionSpec
from ...scenes.caption_parts import PARTS, judge_parts
from ..item_outputs import evaluation_mode
from ..items import Item

__all__ = ["RIGHT", "Drawn", "agreement", "draw_items", "judge_drawn"]

RIGHT = "right"
_BATCH_SIZE = 48
_HALF_RANGE = 127.5  # levels of 255 in one unit of pixels
Values = dict[str, list[float | None]]


@dataclass(frozen=True)
class Drawn:
    """What was drawn of some items, in their order.

    Attributes:
        pictures: as they are judged.
        scales: pixels `(3, h, w)` in [-1, 1], from coarse to the picture itself.
    """

    pictures: list[Image.Image]
    scales: list[list[torch.Tensor]]


def draw_items(
    ablation: FamilyAblation, model: Any, processor: Any, items: Sequence[Item], report: Callable[[int, int], None]
) -> Drawn:
    """Draws items, each with the noise of its own seed.

    Args:
        ablation: knows how.
        model, processor: a trained variant.
        items: of one size.
        report: called with the pictures done and their number.
    """
    pictures: list[Image.Image] = []
    scales: list[list[torch.Tensor]] = []
    with evaluation_mode(model):
        for start in range(0, len(items), _BATCH_SIZE):
            chosen = items[start : start + _BATCH_SIZE]
            batch = processor(
                text=[item.prompt.prompt for item in chosen if item.prompt is not None],
                generation_mode="image",
                height=[item.height for item in chosen],
                width=[item.width for item in chosen],
                return_tensors="pt",
            ).to(model.device)
            drawn = ablation.draw(model, batch, [torch.Generator().manual_seed(item.seed) for item in chosen])
            scales += [[one.float().cpu() for one in picture] for picture in drawn]
            pictures += processor.pictures([picture[-1] for picture in drawn])
            report(len(pictures), len(items))
    return Drawn(pictures, scales)


def judge_drawn(items: Sequence[Item], drawn: Drawn) -> Values:
    """Values by name, one per item; None where an item has none.

    "right" and the parts of `scenes.caption_parts` are 0 or 1. For each coarser scale, by its share of the picture's edge
    (0.25), "agreement 0.25" is how its picture goes with the fine one, see [`agreement`], and "difference 0.25" how far it
    is from it in levels of 255, both at the coarse size.

    Args:
        items: what was asked.
        drawn: what came of it.
    """
    values: Values = {name: [] for name in (RIGHT, *PARTS)}
    for item, picture in zip(items, drawn.pictures, strict=True):
        assert item.prompt is not None and isinstance(item.prompt.spec, CaptionSpec)
        values[RIGHT].append(float(bool(item.judge(picture))))
        for name, found in judge_parts(picture, item.prompt.spec).items():
            values[name].append(None if found is None else float(found))
    fine = torch.stack([picture[-1] for picture in drawn.scales])
    for number in range(len(drawn.scales[0]) - 1):
        coarse = torch.stack([picture[number] for picture in drawn.scales])
        edge = f"{coarse.shape[-1] / fine.shape[-1]:.2g}"
        agrees, differs = agreement(coarse, fine)
        values |= {f"agreement {edge}": agrees.tolist(), f"difference {edge}": differs.tolist()}
    return values


def agreement(coarse: torch.Tensor, fine: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How coarse pictures go with fine ones that were drawn for the same words, from other noise.

    Args:
        coarse: `(N, 3, h, w)` in [-1, 1].
        fine: `(N, 3, H, W)`; brought to the coarse size by averaging.

    Returns:
        For each picture, `(N,)`: of the other fine pictures, the share that is further away from the coarse one than its
        own is (chance is 0.5; equal ones count half); and the mean absolute distance from its own, in levels of 255.
    """
    small = functional.interpolate(fine, coarse.shape[-2:], mode="area").flatten(1)
    distances = torch.cdist(coarse.flatten(1), small, p=1) / small.shape[1]
    own = distances.diagonal()
    others = max(len(own) - 1, 1)
    further = (distances > own[:, None]).sum(1) + 0.5 * ((distances == own[:, None]).sum(1) - 1)
    return further / others, own * _HALF_RANGE
