"""From the authors' released files to a transformers folder, and from there to other places."""

from .convert import convert_checkpoint, convert_vq
from .export import export_qwen
from .hub import CardEntries, export_hub, push_to_hub

__all__ = ["CardEntries", "convert_checkpoint", "convert_vq", "export_hub", "export_qwen", "push_to_hub"]
