"""What the toy family (tests/toy_family.py) brings to compare: how strong its colours begin, and a coarser picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from toy_family import TEMPLATE, ToyConfig, ToyModel, ToyProcessor, toy_tokenizer
from toy_kit import ToyStage
from wallaroo_hf.families.ablation_contract import Claim, FamilyVariant


class ToyAblation:
    """See [`wallaroo_hf.families.ablation_contract.FamilyAblation`]."""

    question = "How strong shall colours be?"
    variants: Mapping[str, FamilyVariant] = {
        "plain": FamilyVariant("plain", "toy", "as strong as they are"),
        "half": FamilyVariant("half", "toy", "half as strong", 1.5),
        "coarse": FamilyVariant("coarse", "toy", "with a coarser picture"),
    }
    references = ("plain",)
    claims = (
        Claim("strength helps", "plain", "half"),
        Claim("coarse pictures help", "coarse", "plain"),
    )
    size = (64, 64)
    steps = 2
    batch_size = 4

    def open(self, base: str, folder: Path) -> str:
        """Nothing is built on anything."""
        return base

    def describe(self, variant: str) -> dict[str, Any]:
        """Its strength."""
        return {"strength": 0.5 if variant == "half" else 1.0}

    def start(self, parts: Any, variant: str, seed: int) -> tuple[Any, Any]:
        """A bit different for each seed."""
        model = ToyModel(ToyConfig(architectures=["ToyModel"], coarse=variant == "coarse"))
        with torch.no_grad():
            model.strength.fill_(self.describe(variant)["strength"] + seed / 8)
        return model, ToyProcessor(toy_tokenizer(), chat_template=TEMPLATE)

    def stage(self, variant: str, steps: int, batch_size: int) -> ToyStage:
        """Few steps."""
        return ToyStage(max_steps=steps, global_batch_size=batch_size)

    def draw(self, model: Any, batch: Any, generators: Sequence[torch.Generator]) -> list[list[torch.Tensor]]:
        """Its pictures, and coarser ones where it has them."""
        pictures = model.draw(batch, generators=list(generators)).pixels
        if not model.config.coarse:
            return [[picture] for picture in pictures]
        return [[functional.avg_pool2d(picture, 2), picture] for picture in pictures]


ABLATION = ToyAblation()
