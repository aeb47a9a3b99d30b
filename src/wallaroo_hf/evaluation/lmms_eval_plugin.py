"""Tells lmms-eval of the model `wallaroo` (entry point `lmms_eval.models`); what it does is in `lmms_eval_model.py`."""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """The `lmms_eval.models.registry_v2.ModelManifest` of this package."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        model_id="wallaroo", simple_class_path="wallaroo_hf.evaluation.lmms_eval_model.WallarooLmmsEval"
    )
