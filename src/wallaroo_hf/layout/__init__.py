"""What a sequence looks like: strings and integers only, no torch."""

from .checkpoint_layout import Layout

__all__ = ["Layout"]
