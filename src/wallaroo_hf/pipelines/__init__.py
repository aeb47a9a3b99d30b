"""Pipelines: one call from words to pictures, and transformers' any-to-any without torchvision."""

from .any_to_any import WallarooAnyToAnyPipeline
from .drawing_pipeline import WallarooPipeline, WallarooPipelineOutput

__all__ = ["WallarooAnyToAnyPipeline", "WallarooPipeline", "WallarooPipelineOutput"]
