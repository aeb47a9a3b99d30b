"""Pre-distillation: the semantic layers learn to see in latents, noisy or not, what a SigLIP sees in pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F
from transformers import SiglipVisionModel

from ...families.loading import reading_checkpoint
from ..showo2_configuration import ShowO2Config

__all__ = ["Teacher", "load_teacher"]


class Teacher:
    """A SigLIP whose features behind as many layers as the student has are what the student learns.

    Args:
        model: frozen; on any device.
        num_layers: of the student.
        patch_size: latents of the student's tokens, along either edge.
    """

    def __init__(self, model: SiglipVisionModel, num_layers: int, patch_size: int) -> None:
        self.model, self.num_layers, self.patch_size = model.eval().requires_grad_(False), num_layers, patch_size

    @torch.no_grad()
    def features(self, pixels: Sequence[torch.Tensor], latents: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """What it sees, one `(N, width)` per picture, as many tokens as the student has of it.

        Args:
            pixels: pictures `(3, H, W)` in [-1, 1], clean.
            latents: of the student, `(C, h, w)`: what counts of them is their grid, to which pictures are resized.
        """
        seen = []
        for picture, student in zip(pixels, latents, strict=True):
            device = student.device
            self.model.to(device)
            rows, cols = (edge // self.patch_size for edge in student.shape[-2:])
            size = self.model.config.patch_size
            own = F.interpolate(
                picture[None].to(device), (rows * size, cols * size), mode="bicubic", antialias=True
            ).clamp(-1, 1)
            is_native = own.shape[-2:] == (self.model.config.image_size,) * 2
            output = self.model(own, interpolate_pos_encoding=not is_native, output_hidden_states=True)
            seen.append(output.hidden_states[self.num_layers][0])
        return seen


def load_teacher(name: str, config: ShowO2Config) -> Teacher:
    """Loads a SigLIP as the teacher of a model.

    Args:
        name: folder or Hub id.
        config: the student's.

    Raises:
        ValueError: if there is none, or its features are not as wide or not as deep as the student's.
    """
    with reading_checkpoint(name, "teacher"):
        model = SiglipVisionModel.from_pretrained(name, dtype=torch.float32)
    student, own = config.vision_config, model.config
    if own.hidden_size != student.hidden_size or own.num_hidden_layers < student.num_hidden_layers:
        raise ValueError(
            f"The teacher '{name}' has {own.num_hidden_layers} layers of width {own.hidden_size}, but the model's semantic "
            f"path has {student.num_hidden_layers} of width {student.hidden_size}; give the SigLIP that it is made of."
        )
    return Teacher(model, student.num_hidden_layers, config.patch_size)
