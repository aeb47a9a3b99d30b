"""What diffusers' modules hold beside layers, initialised as their constructors do: transformers knows layers only."""

import torch
from torch import nn
from transformers import initialization as init

__all__ = ["init_bare_tensors"]


def init_bare_tensors(module: nn.Module) -> None:
    """Initialises a module's own tensors that no checkpoint filled; for a model's `_init_weights`.

    What transformers has loaded it marks, and `transformers.initialization` leaves it alone.

    Args:
        module: any; one that holds none of them stays as it is.
    """
    own = {**module._parameters, **module._buffers}
    modulation = own.get("scale_shift_table")  # of Sana and its blocks, (2 or 6, width)
    if modulation is not None:
        init.normal_(modulation, std=modulation.shape[-1] ** -0.5)
    gain = own.get("gamma")  # of the norms of Wan's VAE
    if gain is not None:
        init.ones_(gain)
        offset = own.get("bias")
        if offset is not None:
            init.zeros_(offset)
    positions = own.get("pos_embed")  # of SD3's patches, (1, rows * columns, width)
    if positions is not None:
        init.copy_(positions, _sine_positions(module, positions))


def _sine_positions(patches: nn.Module, like: torch.Tensor) -> torch.Tensor:
    """The table of positions of diffusers' `PatchEmbed`."""
    from diffusers.models.embeddings import get_2d_sincos_pos_embed

    table: torch.Tensor = get_2d_sincos_pos_embed(
        like.shape[-1],
        round(like.shape[1] ** 0.5),
        base_size=patches.base_size,
        interpolation_scale=patches.interpolation_scale,
        device="cpu",
        output_type="pt",
    )
    return table.to(like.dtype)[None]
