"""Pipelines: one call from words to pictures, and transformers' any-to-any without torchvision."""

from .any_to_any import WallarooAnyToAnyPipeline
from .drawing_pipeline import DrawingPipeline, DrawingPipelineOutput, WallarooPipeline, WallarooPipelineOutput

__all__ = [
    "DrawingPipeline",
    "DrawingPipelineOutput",
    "WallarooAnyToAnyPipeline",
    "WallarooPipeline",
    "WallarooPipelineOutput",
]
