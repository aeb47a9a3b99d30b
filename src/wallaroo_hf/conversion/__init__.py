"""From the authors' released files to a transformers folder, and from there to other places."""

from .converter import convert_checkpoint, convert_vq
from .hub import CardEntries, export_hub, push_to_hub
from .qwen_export import export_qwen

__all__ = ["CardEntries", "convert_checkpoint", "convert_vq", "export_hub", "export_qwen", "push_to_hub"]
