"""Telling text from images in generated ids."""

from collections.abc import Callable, Sequence

import numpy as np


def split_pieces(
    ids: Sequence[int], first_image_token_id: int, line_break_id: int, decode: Callable[[list[int]], str]
) -> list[str | np.ndarray]:
    """Pieces of text and images `(rows, cols)` of one row of ids, in order; empty text is left out.

    Args:
        ids: what was generated.
        first_image_token_id: the id of code 0.
        line_break_id: of the token between rows of codes.
        decode: token ids to text.

    Raises:
        ValueError: if an image is not a whole grid.
    """
    pieces: list[str | np.ndarray] = []
    text: list[int] = []
    lines: list[list[int]] = []

    def finish_text() -> None:
        decoded = decode(text) if text else ""
        if decoded.strip():
            pieces.append(decoded)
        text.clear()

    def finish_image() -> None:
        if lines:
            pieces.append(_as_grid(lines))
        lines.clear()

    for token in ids:
        if token >= first_image_token_id:
            if not lines:
                finish_text()
                lines.append([])
            lines[-1].append(token - first_image_token_id)
        elif token == line_break_id and lines:
            lines.append([])
        else:
            finish_image()
            text.append(token)
    finish_image()
    finish_text()
    return pieces


def _as_grid(lines: list[list[int]]) -> np.ndarray:
    """Lines of codes as a grid; one line alone is the plain grid, which is square."""
    if len(lines) == 1:
        side = round(len(lines[0]) ** 0.5)
        if side * side == len(lines[0]):
            return np.array(lines[0], dtype=np.int64).reshape(side, side)
    if len({len(line) for line in lines}) != 1:
        raise ValueError(
            f"An image has lines of {sorted({len(line) for line in lines})} codes, so it is not whole; split only what "
            "was drawn to its end."
        )
    return np.array(lines, dtype=np.int64)
