"""How latents become tokens of the language model: SigLIP's layers beside one projection, fused."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel, SiglipVisionConfig
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from transformers.models.siglip.modeling_siglip import SiglipEncoderLayer

from .showo2_configuration import ShowO2Config

__all__ = ["ShowO2Fusion", "ShowO2VisualPath", "VisualFeatures"]


class VisualFeatures(NamedTuple):
    """What the dual path makes of latents; each one tensor `(B, N, width)`, or a list of `(N, width)` by image.

    Attributes:
        fused: of the language model's width: its tokens.
        semantic: of SigLIP's width, behind its layers.
        projector: of the language model's width.
    """

    fused: torch.Tensor | list[torch.Tensor]
    semantic: torch.Tensor | list[torch.Tensor]
    projector: torch.Tensor | list[torch.Tensor]


class ShowO2Fusion(nn.Module):
    """Semantic and projected features, side by side, to the language model's width.

    Args:
        semantic_size, hidden_size: the widths.
    """

    def __init__(self, semantic_size: int, hidden_size: int) -> None:
        super().__init__()
        self.norm = Qwen2RMSNorm(semantic_size + hidden_size, eps=1e-6)
        self.linear_1 = nn.Linear(semantic_size + hidden_size, hidden_size)
        self.linear_2 = nn.Linear(hidden_size, hidden_size)

    def forward(self, semantic: torch.Tensor, projector: torch.Tensor) -> torch.Tensor:
        """`(B, N, semantic_size)` and `(B, N, hidden_size)` to `(B, N, hidden_size)`."""
        return self.linear_2(F.gelu(self.linear_1(self.norm(torch.cat([semantic, projector], dim=-1)))))


class ShowO2VisualPath(PreTrainedModel):
    """The dual path of Show-o2 (paper section 3.2): patches of latents through SigLIP's layers, and through one projection.

    A `PreTrainedModel`, so that the attention of its layers is chosen with that of the others.

    Args:
        config: the whole model's; its own is the `vision_config` in it.
    """

    config_class = SiglipVisionConfig
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["SiglipEncoderLayer"]

    def __init__(self, config: ShowO2Config) -> None:
        super().__init__(config.vision_config)
        self.grid = (int(config.position_grid[0]), int(config.position_grid[1]))
        width, patch = config.vision_config.hidden_size, config.patch_size
        hidden_size = config.text_config.hidden_size
        self.semantic_patch = nn.Conv2d(config.latent_channels, width, patch, patch)
        self.position_embedding = nn.Embedding(self.grid[0] * self.grid[1], width)
        layers = range(config.vision_config.num_hidden_layers)
        self.semantic_layers = nn.ModuleList([SiglipEncoderLayer(config.vision_config) for _ in layers])
        self.projector_patch = nn.Conv2d(config.latent_channels, hidden_size, patch, patch)
        self.fusion = ShowO2Fusion(width, hidden_size)
        self.post_init()

    def forward(self, latents: torch.Tensor) -> VisualFeatures:
        """Features of latents `(B, C, h, w)`, noisy or clean; the grid is read row by row."""
        latents = latents.to(self.semantic_patch.weight.dtype)
        patches = self.semantic_patch(latents)
        semantic = patches.flatten(2).transpose(1, 2) + self.positions(patches.shape[-2], patches.shape[-1])
        for layer in self.semantic_layers:
            semantic = layer(semantic, attention_mask=None)
        projector = self.projector_patch(latents).flatten(2).transpose(1, 2)
        return VisualFeatures(self.fusion(semantic, projector), semantic, projector)

    def positions(self, rows: int, cols: int) -> torch.Tensor:
        """The position table `(rows · cols, width)` for a grid: bicubic from the one that was learned, as released."""
        table = self.position_embedding.weight
        if (rows, cols) == self.grid:
            return table
        image = table.view(*self.grid, -1).permute(2, 0, 1)[None]
        resized = F.interpolate(image, (rows, cols), mode="bicubic", align_corners=False)
        return resized[0].flatten(1).transpose(0, 1).to(table.dtype)
