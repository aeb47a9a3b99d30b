"""HieraQuery as one of several ways to unify."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from ...families.loading import load_model
from ...families.paradigm_contract import ParadigmParts, paradigm_steps
from ...families.registry import family_of
from ...files.built_in import FOLDER
from ..building import build_hieraquery
from ..hieraquery_model import HieraQueryForConditionalGeneration
from ..processing.hieraquery_processor import HieraQueryProcessor
from .hieraquery_ablation import SMALL_LEARNING, THREE_SCALES
from .hieraquery_small_model import new_small_hieraquery
from .hieraquery_stages import HieraQueryStage, hieraquery_stage

__all__ = ["PARADIGM", "HieraQueryParadigm"]

# Beside the small language model: for as many parameters as the others have.
_SMALL: dict[str, Any] = {
    "width": 128,
    "num_connector_layers": 2,
    "num_layers": 4,
    "num_heads": 4,
    "condition_size": 128,
}
_RECONSTRUCTED = 0.2


class HieraQueryParadigm:
    """See [`wallaroo_hf.families.paradigm_contract.FamilyParadigm`]."""

    words = "a frozen model whose learned queries, coarse to fine, steer a diffusion transformer"
    taken = "the whole language model and its vision encoder, frozen; queries, connector and diffusion are trained"
    options = ("dit", "codec")
    answers_at_once = True
    codec = "codec."
    counted: Mapping[str, str] = {
        "language model": "mllm.model.language_model.layers.0",
        "diffusion transformer": "dit",
    }

    def start(self, parts: ParadigmParts, seed: int) -> tuple[Any, Any]:
        """A new model around the language model.

        Args:
            parts: what it is built on.
            seed: of what is new.

        Raises:
            ValueError: for parts that are not there or do not fit.
        """
        if "dit" in parts.given:
            return self._built(parts, seed)
        wallaroo = family_of("wallaroo", str(FOLDER)).training_kit()
        codec = wallaroo.load_codec(parts.given.get("codec", str(FOLDER)), parts.check_weights)
        return new_small_hieraquery(
            parts.language_model,
            codec,
            scales=THREE_SCALES,
            sizes=parts.sizes,
            seed=seed,
            known_words=parts.known_words,
            **_SMALL,
        )

    def stage(self, parts: ParadigmParts, ratio: Mapping[str, float], steps: int, batch_size: int) -> HieraQueryStage:
        """The last stage with some reconstructions, as the second one has them.

        Args:
            parts: what it is built on.
            ratio: of the tasks.
            steps: of training.
            batch_size: rows of each.
        """
        own: dict[str, Any] = {**SMALL_LEARNING, "bf16": False, "max_length": 512} if parts.small else {}
        return dataclasses.replace(
            hieraquery_stage("editing"),
            **{**own, **paradigm_steps(steps)},
            follows=None,
            image_sizes=parts.sizes,
            reconstruction_rate=_RECONSTRUCTED,
            global_batch_size=batch_size,
            task_ratio=dict(ratio),
        )

    def _built(self, parts: ParadigmParts, seed: int) -> tuple[Any, Any]:
        """From a pipeline of diffusers; its folder is made once for each seed."""
        folder = parts.folder / f"hieraquery-start-seed-{seed}"
        if not (folder / "config.json").exists():
            build_hieraquery(
                parts.language_model,
                parts.given["dit"],
                folder,
                codec=parts.given.get("codec"),
                connector=parts.given.get("connector"),
                size=parts.sizes[0],
                seed=seed,
                dtype="float32",
                check_weights=parts.check_weights,
            )
        model = load_model(HieraQueryForConditionalGeneration, folder, parts.check_weights, dtype=torch.float32)
        return model, HieraQueryProcessor.from_pretrained(folder)


PARADIGM = HieraQueryParadigm()
