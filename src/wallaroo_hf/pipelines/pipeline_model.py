"""What `pipeline("text-to-image")` loads its model with."""

from pathlib import Path
from typing import Any

from transformers import AutoModelForMultimodalLM, Pipeline

from ..families.loading import find_faults, refuse

__all__ = ["PipelineModel", "RefusingMixin"]


class PipelineModel:
    """Loads a model for [`DrawingPipeline`], which refuses it if its weights are damaged.

    transformers tries to load again what raised an error, and then shows the tracebacks of both; so what is wrong is kept
    with the model until there is a pipeline to refuse it.
    """

    @classmethod
    def from_pretrained(cls, name: str | Path, check_weights: bool = True, **arguments: Any) -> Any:
        """The model; see [`wallaroo_hf.families.loading.find_faults`]."""
        model, faults = find_faults(AutoModelForMultimodalLM, name, check_weights, **arguments)
        model.loading_faults = faults
        return model


class RefusingMixin(Pipeline):
    """A pipeline that takes no model of [`PipelineModel`] whose weights are damaged."""

    def __init__(self, model: Any, *args: Any, **kwargs: Any) -> None:
        refuse(getattr(model, "loading_faults", ()), f"checkpoint '{model.name_or_path}'")
        super().__init__(model, *args, **kwargs)
