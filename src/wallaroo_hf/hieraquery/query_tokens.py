"""`HieraQueryTokens`: the queries of every scale, what stands around them, and where they are in the picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from transformers import initialization as init

from .hieraquery_configuration import HieraQueryConfig

__all__ = ["HieraQueryTokens"]

_LONGEST_EDGE = 16.0  # what the picture's longer edge measures in the sinusoids
_BASE = 10000.0


class HieraQueryTokens(nn.Module):
    """Learned vectors in the place of words: for each group (of each scale, as a rule) START, its queries, END.

    Args:
        config: of the model.
    """

    def __init__(self, config: HieraQueryConfig) -> None:
        super().__init__()
        width = config.mllm_config.text_config.hidden_size
        self.grids = config.group_grids
        self.on_grid = config.query_positions == "grid"
        self.std = config.query_std
        for number, (rows, cols) in enumerate(self.grids):  # a list would be a module, which PEFT cannot train whole
            self.register_parameter(f"group_{number}", nn.Parameter(torch.empty(rows * cols, width)))
        self.boundaries = nn.Parameter(torch.empty(len(self.grids), 2, width))  # START and END of each group
        self.reset_parameters()

    @property
    def queries(self) -> list[nn.Parameter]:
        """Queries `(rows * cols, width)` of each group."""
        return [self.get_parameter(f"group_{number}") for number in range(len(self.grids))]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Fresh vectors, as far apart as words."""
        for parameter in self.parameters():
            init.normal_(parameter, std=self.std)

    def spans(self, num_groups: int) -> list[slice]:
        """Where the queries of the first groups stand, without what is around them."""
        spans, start = [], 0
        for rows, cols in self.grids[:num_groups]:
            spans.append(slice(start + 1, start + 1 + rows * cols))
            start += rows * cols + 2
        return spans

    def forward(self, sizes: Sequence[tuple[int, int]], num_groups: int) -> torch.Tensor:
        """Embeddings `(B, L, width)` of the first groups.

        Args:
            sizes: height and width of each row's picture, in any unit: only their ratio counts.
            num_groups: how many groups.
        """
        rows = []
        for size in sizes:
            parts = []
            for number, grid in enumerate(self.grids[:num_groups]):
                start, end = self.boundaries[number]
                queries = self.queries[number]
                places = grid_encoding(grid, size, queries.shape[-1]).to(queries)
                parts += [start[None], queries + math.sqrt(2) * self.std * places, end[None]]
            rows.append(torch.cat(parts))
        return torch.stack(rows)

    def positions(self, first: torch.Tensor, num_groups: int) -> torch.Tensor:
        """Position ids `(3, B, L)` that go on from each row's prompt.

        Args:
            first: `(B,)`, the first one that is free.
            num_groups: how many groups.
        """
        parts: list[torch.Tensor] = []
        start = 0
        for rows, cols in self.grids[:num_groups]:
            if self.on_grid:
                places = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")).flatten(1)
                inner = torch.cat([torch.zeros(1, rows * cols, dtype=torch.long), places]) + start + 1
                after = start + 1 + max(rows, cols)
            else:
                inner = (torch.arange(rows * cols) + start + 1).expand(3, -1)
                after = start + 1 + rows * cols
            parts += [torch.full((3, 1), start), inner, torch.full((3, 1), after)]
            start = after + 1
        offsets = torch.cat(parts, dim=1).to(first.device)
        return offsets[:, None] + first[None, :, None]


def grid_encoding(grid: tuple[int, int], size: tuple[int, int], width: int) -> torch.Tensor:
    """Sinusoids `(rows * cols, width)` of where each cell's middle is in a picture whose longer edge is 1.

    A cell of a coarse grid has the encoding of the place in the fine grid that it covers, and the shape of the picture can
    be read from them.

    Args:
        grid: rows and columns.
        size: height and width of the picture.
        width: of the encoding; what is left over of a multiple of 4 is 0.
    """
    frequencies = _BASE ** -(torch.arange(width // 4, dtype=torch.float64) / max(width // 4, 1))
    axes = []
    for cells, edge in zip(grid, size, strict=True):
        middles = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells * (edge / max(size)) * _LONGEST_EDGE
        angles = middles[:, None] * frequencies
        axes.append(torch.cat([angles.sin(), angles.cos()], dim=1))
    down = axes[0][:, None].expand(-1, grid[1], -1)
    across = axes[1][None].expand(grid[0], -1, -1)
    encoding = torch.cat([down, across], dim=-1).flatten(0, 1)
    return nn.functional.pad(encoding, (0, width - encoding.shape[1])).float()
