"""Show-o2 as one of several ways to unify."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ...families.paradigm_contract import ParadigmParts, paradigm_steps
from .showo2_from_qwen import PictureParts, load_siglip, load_wan, showo2_from_qwen
from .showo2_small_model import CODEC, GUIDANCE_SCALE, PLAIN_ROPE, fit_codec
from .showo2_stages import PARTS, ShowO2Stage, showo2_stage

__all__ = ["PARADIGM", "ShowO2Paradigm"]

# Beside the small language model: for as many parameters as the others have.
_FLOW_LAYERS, _SEMANTIC = 4, {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 2}
_HEADS, _KEY_VALUE_HEADS, _INTERMEDIATE = 4, 2, 512
_SMALL: dict[str, Any] = {
    **{"learning_rate": 2e-3, "learning_rates": {}, "lr_scheduler_type": "linear", "adam_beta2": 0.95},
    **{"bf16": False, "max_length": 512, "understanding": "chat", "fit": "pad", "text_weight": 0.5},
}
_PLAIN_SEMANTIC = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 6}


class ShowO2Paradigm:
    """See [`wallaroo_hf.families.paradigm_contract.FamilyParadigm`]."""

    words = "autoregression for words and flow matching for pictures, in one transformer"
    taken = (
        "the language model without its vision encoder, as Show-o2 sees through layers over latents, which are trained "
        "within the budget; all but the image codec is trained"
    )
    options = ("vision", "vae")
    answers_at_once = False
    codec = "vae."
    counted: Mapping[str, str] = {
        "language model": "model.language_model.layers.0",
        "flow head": "flow_head.layers.0",
    }

    def start(self, parts: ParadigmParts, seed: int) -> tuple[Any, Any]:
        """A new model around the language model.

        Args:
            parts: what it is built on.
            seed: of what is new.

        Raises:
            ValueError: for parts that are not there or do not fit.
        """
        return showo2_from_qwen(
            parts.language_model,
            self._pictures(parts),
            parts.sizes,
            list(dict.fromkeys((*parts.sizes, *parts.seen))),
            seed=seed,
            known_words=parts.known_words,
            check_weights=parts.check_weights,
        )

    def stage(self, parts: ParadigmParts, ratio: Mapping[str, float], steps: int, batch_size: int) -> ShowO2Stage:
        """The last stage, with everything trained and all tasks at once.

        Args:
            parts: what it is built on.
            ratio: of the tasks.
            steps: of training.
            batch_size: rows of each.
        """
        own = _SMALL if parts.small else {}
        return dataclasses.replace(
            showo2_stage("2c"),
            **{**own, **paradigm_steps(steps)},
            follows=None,
            trains=PARTS["all"],
            image_sizes=parts.sizes,
            global_batch_size=batch_size,
            task_ratio=dict(ratio),
        )

    def _pictures(self, parts: ParadigmParts) -> PictureParts:
        """What it sees and draws with: what is given, and otherwise new layers and a linear codec."""
        if "vae" in parts.given:
            codec, codec_config = load_wan(parts.given["vae"])
        else:
            codec, codec_config = fit_codec(map(_pixels, parts.pictures())), dict(CODEC)
        edge = 2 * codec.spatial_factor
        grid = (parts.sizes[0][0] // edge, parts.sizes[0][1] // edge)
        if parts.small:
            return PictureParts(
                codec,
                codec_config,
                {**_SEMANTIC, "num_attention_heads": _HEADS},
                _small_flow_head(),
                {},
                grid,
                output_layout="patches",
                guidance_scale=GUIDANCE_SCALE,
            )
        vision: Any = _PLAIN_SEMANTIC
        semantic: dict[str, Any] = {}
        if "vision" in parts.given:
            vision, semantic, grid = load_siglip(parts.given["vision"], parts.check_weights)
        return PictureParts(codec, codec_config, vision, {}, semantic, grid)


def _small_flow_head() -> dict[str, Any]:
    width = 192  # the small language model's: there are no projections between equal widths
    return {
        **{"hidden_size": width, "intermediate_size": _INTERMEDIATE, "num_hidden_layers": _FLOW_LAYERS},
        **{"num_attention_heads": _HEADS, "num_key_value_heads": _KEY_VALUE_HEADS, "head_dim": width // _HEADS},
        "rope_parameters": dict(PLAIN_ROPE),
    }


def _pixels(picture: Any) -> torch.Tensor:
    """`(3, H, W)` in [-1, 1]."""
    return torch.from_numpy(np.asarray(picture, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1


PARADIGM = ShowO2Paradigm()
