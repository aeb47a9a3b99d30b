"""From token ids to pixels: find each row's last image, read its grid off the line breaks, decode it."""

from collections.abc import Sequence
from typing import Any

import torch


def last_image_spans(
    tokens: torch.Tensor,
    target_grid_hw: torch.Tensor | Sequence[Sequence[int]] | None,
    config: Any,
    allow_partial: bool = False,
) -> list[torch.Tensor]:
    """Codes `(rows, cols)` of the last image of each row of ids `(B, T)`.

    Args:
        tokens: prompts and what was generated, `(B, T)`.
        target_grid_hw: rows and columns of codes for each row of ids, `(B, 2)`; None = as the line breaks say.
        config: the model's.
        allow_partial: whether the complete lines of an unfinished image will do.

    Raises:
        ValueError: see `decode_image_tokens`.
    """
    if tokens.ndim != 2:
        raise ValueError(f"`tokens` has shape {tuple(tokens.shape)}, but must be (B, T), as `generate` returns it.")
    wanted = [None] * len(tokens) if target_grid_hw is None else torch.as_tensor(target_grid_hw).tolist()
    if len(wanted) != len(tokens):
        raise ValueError(f"`target_grid_hw` has {len(wanted)} rows, but `tokens` has {len(tokens)}; give one per row.")
    images = []
    for index, (ids, grid) in enumerate(zip(tokens.tolist(), wanted, strict=True)):
        lines, complete = _read_lines(ids, index, config)
        if complete:
            images.append(_whole_image(lines, grid, index))
        elif allow_partial:
            images.append(_complete_rows(lines, grid, index))
        else:
            raise ValueError(
                f"The image of row {index} is incomplete: it does not end with <|generate_end|>; pass "
                "allow_partial=True to decode the rows that are there."
            )
    return images


def _read_lines(ids: list[int], index: int, config: Any) -> tuple[list[list[int]], bool]:
    """The codes of a row's last image, line by line, and whether its end was reached."""
    first_code = config.text_config.vocab_size
    starts = [len(ids) - ids[::-1].index(token) for token in config.image_start_token_ids if token in ids]
    if not starts:
        raise ValueError(f"Row {index} holds no image; draw one with generation_mode='image'.")
    start = max(starts)
    lines: list[list[int]] = [[]]
    for token in ids[start:]:
        if token == config.end_of_line_token_id:
            lines.append([])
        elif first_code <= token < first_code + config.codebook_size:
            lines[-1].append(token - first_code)
        else:
            return lines, token == config.generate_end_token_id
    return lines, False


def _whole_image(lines: list[list[int]], grid: Sequence[int] | None, index: int) -> torch.Tensor:
    codes = [code for line in lines for code in line]
    if len(lines) > 1:
        shape = (len(lines), len(lines[0]))
        if len({len(line) for line in lines}) > 1:
            raise ValueError(f"The image of row {index} has lines of different lengths, so it cannot be decoded.")
    elif grid is not None:
        shape = (int(grid[0]), int(grid[1]))
    else:
        side = round(len(codes) ** 0.5)
        shape = (side, side)
    if not codes or shape[0] * shape[1] != len(codes) or (grid is not None and shape != (int(grid[0]), int(grid[1]))):
        raise ValueError(
            f"The image of row {index} has {len(codes)} codes in {len(lines)} line(s), which is not a grid of "
            f"{shape[0]}x{shape[1] if grid is None else int(grid[1])}; pass `target_grid_hw` (rows, columns)."
        )
    return torch.tensor(codes, dtype=torch.long).view(shape)


def _complete_rows(lines: list[list[int]], grid: Sequence[int] | None, index: int) -> torch.Tensor:
    """The rows that an unfinished image has; their width is the grid's, else that of the first line."""
    cols = int(grid[1]) if grid is not None else len(lines[0]) if len(lines) > 1 else 0
    codes = [code for line in lines for code in line]
    rows = len(codes) // cols if cols else 0
    if rows == 0:
        raise ValueError(
            f"The image of row {index} has no complete row yet, or its width is unknown; draw more of it, or pass "
            "`target_grid_hw` (rows, columns)."
        )
    return torch.tensor(codes[: rows * cols], dtype=torch.long).view(rows, cols)


def decode_rows(vq_model: Any, grids: Sequence[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
    """Decodes grids of codes; those of one size go through the decoder together."""
    pixels: list[torch.Tensor | None] = [None] * len(grids)
    for shape in {tuple(grid.shape) for grid in grids}:
        members = [index for index, grid in enumerate(grids) if tuple(grid.shape) == shape]
        decoded = vq_model.decode(torch.stack([grids[index] for index in members]))
        for index, image in zip(members, decoded, strict=True):
            pixels[index] = image
    if len({tuple(grid.shape) for grid in grids}) == 1:
        return torch.stack(pixels)
    return pixels
