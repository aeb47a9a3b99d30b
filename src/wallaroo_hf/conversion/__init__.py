"""From the authors' released files to a transformers folder."""

from .convert import convert_checkpoint, convert_vq

__all__ = ["convert_checkpoint", "convert_vq"]
