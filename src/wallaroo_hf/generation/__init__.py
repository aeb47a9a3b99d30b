"""Drawing through transformers' own `generate()`."""

from .rows import NullPromptCache
from .streamers import ImageStreamer

__all__ = ["ImageStreamer", "NullPromptCache"]
