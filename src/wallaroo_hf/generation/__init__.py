"""Drawing through transformers' own `generate()`."""

from .null_prompts import NullPromptCache
from .outputs import DrawingOutput, DrawingStatistics
from .streamers import ImageStreamer

__all__ = ["DrawingOutput", "DrawingStatistics", "ImageStreamer", "NullPromptCache"]
