"""Drawing through transformers' own `generate()`."""

from .outputs import DrawingOutput, DrawingStatistics
from .rows import NullPromptCache
from .streamers import ImageStreamer

__all__ = ["DrawingOutput", "DrawingStatistics", "ImageStreamer", "NullPromptCache"]
