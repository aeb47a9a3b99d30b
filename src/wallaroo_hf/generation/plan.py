"""What is known before an image is drawn: where its codes stand, which of them are given, and what stands between them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..layout.grid import render_rows

_CODE, _BREAK = "c", "b"


@dataclass(frozen=True)
class DrawingPlan:
    """The layout of the new tokens of a batch.

    Attributes:
        forced_token_ids: `(B, N)` int64: line breaks, the image's end, then padding, and codes that are given; -1 where a
            code is decided.
        code_positions: `(B, N)` int64: raster index of the code that stands there; meaningless elsewhere.
        is_code: per position, which rows have a code there (on the host, so that no step waits for the device). Each has
            its place in the noise, given or not.
        is_open: per position, which rows decide that code.
        grids: `(rows, cols)` of each image.
    """

    forced_token_ids: torch.Tensor
    code_positions: torch.Tensor
    is_code: list[list[bool]]
    is_open: list[list[bool]]
    grids: list[tuple[int, int]]

    @property
    def length(self) -> int:
        """Number of new tokens, the end of the longest image included."""
        return len(self.is_code)

    @property
    def columns(self) -> list[int]:
        """How many codes each row of each image has."""
        return [cols for _, cols in self.grids]

    def to(self, device: torch.device) -> "DrawingPlan":
        """The same plan with its tensors on a device."""
        forced, positions = self.forced_token_ids.to(device), self.code_positions.to(device)
        return DrawingPlan(forced, positions, self.is_code, self.is_open, self.grids)


def plan_drawing(
    grids: Sequence[tuple[int, int]],
    line_breaks: bool,
    end_of_line_id: int,
    generate_end_id: int,
    pad_id: int,
    given: Sequence[torch.Tensor | None] | None = None,
) -> DrawingPlan:
    """Plans a batch of images.

    Args:
        grids: `(rows, cols)` per image.
        line_breaks: whether a line break stands between rows.
        end_of_line_id, generate_end_id, pad_id: what stands between codes and behind them.
        given: per image the ids of its codes that are given, `(rows, cols)` int64, -1 where one is decided; None = none is.
    """
    streams = []
    for rows, cols in grids:
        text = (
            render_rows(_CODE, rows, cols, line_breaks=False)
            if not line_breaks
            else _BREAK.join([_CODE * cols] * rows)
        )
        streams.append([-1 if kind == _CODE else end_of_line_id for kind in text] + [generate_end_id])
    length = max(len(stream) for stream in streams)
    forced = torch.tensor([stream + [pad_id] * (length - len(stream)) for stream in streams], dtype=torch.long)
    is_code = forced == -1
    positions = (is_code.long().cumsum(dim=1) - 1).clamp(min=0)
    for row, ids in enumerate(given or ()):
        if ids is not None:
            forced[row, is_code[row]] = ids.flatten().to(forced)
    return DrawingPlan(forced, positions, is_code.T.tolist(), (forced == -1).T.tolist(), list(grids))
