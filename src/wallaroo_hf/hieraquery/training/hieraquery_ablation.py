"""The rows of the paper's Tables 3 and 4 at a sixteenth of their queries, and the controls that the paper lacks.

At the paper's scale pictures of 512 pixels are 16x16 latents, coarser ones 8x8 and 4x4, and the groups of queries have the
same grids. Here pictures of 64 pixels are 4x4 codes of the built-in image tokenizer, coarser ones 2x2 and 1x1: every group
has a sixteenth of the paper's queries, and factors, shares and the rest are the paper's. Variants keep the paper's numbers
in their names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ...families.ablation_contract import Claim, FamilyVariant
from ...families.registry import find_family
from .hieraquery_small_model import new_small_hieraquery
from .hieraquery_stages import hieraquery_stage

__all__ = ["ABLATION", "SMALL_LEARNING", "THREE_SCALES", "HieraQueryVariant"]

SIZE = (64, 64)
# of the small model: groups of 1, 4 and 16 queries for pictures of 1x1, 2x2 and 4x4 codes
_QUARTER = {"query_grid": (1, 1), "factor": 0.25}
_HALF = {"query_grid": (2, 2), "factor": 0.5}
_WHOLE = {"query_grid": (4, 4), "factor": 1.0}
THREE_SCALES = (_QUARTER, _HALF, _WHOLE)
_MORE_TOKENS = sum(scale["factor"] ** 2 for scale in THREE_SCALES)  # type: ignore[operator]  # what the three scales cost: 1.31
_MODEL: dict[str, Any] = {"width": 128, "num_layers": 4, "num_heads": 4, "condition_size": 128}
# A small model's rates, with Muon; noise is cheap beside the language model.
SMALL_LEARNING: dict[str, Any] = {"learning_rate": 3e-3, "lowest_rate": 6e-5, "weight_decay": 0.0, "noise_draws": 4}


@dataclass(frozen=True)
class HieraQueryVariant(FamilyVariant):
    """One arrangement of a small HieraQuery.

    Attributes:
        scales: of its configuration.
        settings: others of [`new_small_hieraquery`].
        random_language_model: whether the frozen language model has random weights.
    """

    scales: Sequence[Mapping[str, Any]] = THREE_SCALES
    settings: Mapping[str, Any] = field(default_factory=dict)
    random_language_model: bool = False


def _grids(*grids: tuple[int, int]) -> tuple[dict[str, Any], ...]:
    """The three scales with other grids of queries."""
    return tuple({**scale, "query_grid": grid} for scale, grid in zip(THREE_SCALES, grids, strict=True))


_ALIGNED = {"alignment_weight": 0.5}
_UNSUPERVISED = ({**_QUARTER, "loss_weight": 0.0}, {**_HALF, "loss_weight": 0.0}, _WHOLE)
_VARIANTS = (
    HieraQueryVariant("single-256", "Table 3", "one scale, 256 queries (here 16)", scales=(_WHOLE,)),
    HieraQueryVariant(
        "single-336", "Table 3", "one scale, 336 queries (21)", scales=({"query_grid": (3, 7), "factor": 1.0},)
    ),
    HieraQueryVariant("+M", "Table 3", "three scales, 16 + 64 + 256 queries (1 + 4 + 16)"),
    HieraQueryVariant("+M+A", "Table 3", "three scales with alignment", settings=_ALIGNED),
    HieraQueryVariant("272", "Table 4", "scales 1/4 and 1, 16 + 256 queries (1 + 16)", scales=(_QUARTER, _WHOLE)),
    HieraQueryVariant(
        "272+A",
        "Table 4",
        "the same with alignment: the paper does not say",
        scales=(_QUARTER, _WHOLE),
        settings=_ALIGNED,
    ),
    HieraQueryVariant("320", "Table 4", "scales 1/2 and 1, 64 + 256 queries (4 + 16)", scales=(_HALF, _WHOLE)),
    HieraQueryVariant(
        "320+A",
        "Table 4",
        "the same with alignment: the paper does not say",
        scales=(_HALF, _WHOLE),
        settings=_ALIGNED,
    ),
    HieraQueryVariant(
        "512",
        "Table 4",
        "1.5 times the queries of every group (2 + 6 + 24): ours",
        scales=_grids((1, 2), (2, 3), (4, 6)),
    ),
    HieraQueryVariant(
        "1024",
        "Table 4",
        "three times the queries of every group (3 + 12 + 48): ours",
        scales=_grids((1, 3), (3, 4), (6, 8)),
    ),
    HieraQueryVariant(
        "C1",
        "control",
        "three resolutions, one set of 336 queries (21) for all",
        scales=_grids(*[(3, 7)] * 3),
        settings={"query_groups": "shared", "condition": "all"},
    ),
    HieraQueryVariant("C2", "control", "three groups, only the finest is drawn from", scales=_UNSUPERVISED),
    HieraQueryVariant("C3", "control", "single-256, trained as long as +M computes", _MORE_TOKENS, scales=(_WHOLE,)),
    HieraQueryVariant("C4", "control", "single-256 with alignment", scales=(_WHOLE,), settings=_ALIGNED),
    HieraQueryVariant("C5", "control", "+M, fine to coarse", settings={"query_groups": "fine_to_coarse"}),
    HieraQueryVariant("C6", "control", "+M, coarser groups condition a scale too", settings={"condition": "prefix"}),
    HieraQueryVariant("C7", "control", "+M over a random language model", random_language_model=True),
    HieraQueryVariant(
        "C7-single", "control", "single-256 over a random language model", scales=(_WHOLE,), random_language_model=True
    ),
)


@dataclass(frozen=True)
class _Parts:
    """The frozen parts.

    Attributes:
        folder: with `language-model`, a Qwen2.5-VL; gone with this.
        codec: an image tokenizer.
    """

    folder: TemporaryDirectory[str]
    codec: Any

    @property
    def language_model(self) -> Path:
        """Its folder."""
        return Path(self.folder.name) / "language-model"


class HieraQueryAblation:
    """See [`wallaroo_hf.families.ablation_contract.FamilyAblation`]."""

    question = "Do coarse queries and coarse pictures help, and what of them does?"
    variants: Mapping[str, HieraQueryVariant] = {variant.name: variant for variant in _VARIANTS}
    references = ("single-256", "+M")
    claims = (
        Claim("M helps (Table 3)", "+M", "single-256"),
        Claim("M helps more than as many queries at one scale do (Table 3)", "+M", "single-336"),
        Claim("A helps (Table 3)", "+M+A", "+M"),
        Claim("a quarter helps (Table 4)", "272", "single-256"),
        Claim("a half helps (Table 4)", "320", "single-256"),
        Claim("three scales help more than two (Table 4)", "+M", "320"),
        Claim("more queries help (Table 4)", "512", "+M"),
        Claim("groups help, not resolutions alone", "+M", "C1"),
        Claim("coarse pictures help, not coarse queries alone", "+M", "C2"),
        Claim("M helps beyond its compute", "+M", "C3"),
        Claim("A helps without M", "C4", "single-256"),
        Claim("coarse to fine is the right order", "+M", "C5"),
        Claim("coarse conditions help too", "C6", "+M"),
        Claim("the language model matters, with M", "+M", "C7"),
        Claim("the language model matters, without M", "single-256", "C7-single"),
    )
    size = SIZE
    steps = 3000
    batch_size = 32

    def open(self, base: str, folder: Path) -> _Parts:
        """The language model and the image tokenizer of a checkpoint whose family exports one, such as the built-in's.

        Args:
            base: its folder or Hub id.
            folder: of the run; has the language model for as long as it is needed.

        Raises:
            ValueError: for a checkpoint of a family without one.
        """
        family = find_family(base)
        if family.export_language_model is None or family.codec is None:
            raise ValueError(
                f"'{base}' is a {family.title} checkpoint, which has no language model and image tokenizer to build a "
                "small HieraQuery on; give a Wallaroo checkpoint as --base."
            )
        folder.mkdir(parents=True, exist_ok=True)
        parts = _Parts(TemporaryDirectory(prefix=".base-", dir=folder), family.training_kit().load_codec(base))
        family.resolve("export_language_model")(base, parts.language_model)
        return parts

    def describe(self, variant: str) -> dict[str, Any]:
        """Its configuration, as far as it is not every variant's, and the size of the model."""
        chosen = self.variants[variant]
        return {
            "scales": [{**scale, "query_grid": list(scale["query_grid"])} for scale in chosen.scales],
            **{"condition": "own", "query_groups": "coarse_to_fine", "alignment_weight": 0.0},
            **chosen.settings,
            "random_language_model": chosen.random_language_model,
            "model": dict(_MODEL),
        }

    def start(self, parts: _Parts, variant: str, seed: int) -> tuple[Any, Any]:
        """A new model, in float32 on the CPU, and its processor.

        Args:
            parts: from [`open`].
            variant: its name.
            seed: of random weights, those of a random language model among them.
        """
        chosen = self.variants[variant]
        settings = {"alignment_weight": 0.0, **chosen.settings}
        model, processor = new_small_hieraquery(
            parts.language_model, parts.codec, scales=chosen.scales, sizes=(SIZE,), seed=seed, **_MODEL, **settings
        )
        if chosen.random_language_model:
            _forget_language(model, seed)
        return model, processor

    def stage(self, variant: str, steps: int, batch_size: int) -> Any:
        """The paper's first stage at a small model's rates.

        Args:
            variant: its name.
            steps: of training.
            batch_size: rows of each.
        """
        weight = self.variants[variant].settings.get("alignment_weight", 0.0)
        changes = {**SMALL_LEARNING, "warmup_steps": min(100, steps // 10), "alignment_weight": weight}
        return dataclasses.replace(
            hieraquery_stage("t2i"), **changes, max_steps=steps, global_batch_size=batch_size, image_sizes=(SIZE,)
        )

    def draw(self, model: Any, batch: Any, generators: Sequence[torch.Generator]) -> list[list[torch.Tensor]]:
        """Draws a batch with the model's own settings.

        Args:
            model: a trained one.
            batch: from its processor.
            generators: of the noise, one per picture.

        Returns:
            For each row its pictures `(3, h, w)` in [-1, 1]: those of coarser scales that are drawn from in training, then
            the picture.
        """
        coarse = [number for number, scale in enumerate(model.config.scales[:-1]) if scale["loss_weight"] > 0]
        if not coarse:
            return [[pixels] for pixels in model.draw(batch, generators=generators).pixels]
        drawn = model.draw(batch, generators=generators, scales="all")
        pictures = model.decode_scales(drawn.native)
        return [[picture[number] for number in (*coarse, -1)] for picture in pictures]


@torch.no_grad()
def _forget_language(model: Any, seed: int) -> None:
    """Random weights for the language model, and queries that are as far apart as its words."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = type(model.mllm)(model.mllm.config).model.language_model
        model.mllm.model.language_model.load_state_dict(fresh.state_dict())
        model.config.query_std = model.queries.std = float(fresh.embed_tokens.weight.std())
        model.queries.reset_parameters()


ABLATION = HieraQueryAblation()
