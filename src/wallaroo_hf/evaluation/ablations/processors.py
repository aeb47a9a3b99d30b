"""What only an ablation needs of a processor: the source block behind the NaViT block."""

from __future__ import annotations

from typing import Any

from ...layout.special_tokens import PIXEL_END, PIXEL_START, VISION_END
from ...processing.processor import WallarooProcessor
from ...processing.token_rows import TokenRow

__all__ = ["SourceAfterProcessor"]


class SourceAfterProcessor(WallarooProcessor):
    """Edits show what NaViT sees first and the source's codes after it; released: the other way round.

    In image mode; the rows of auto mode, which no ablation trains, stay as they are.
    """

    def _branch(self, *args: Any) -> tuple[list[TokenRow], dict[str, Any]]:
        rows, pixels = super()._branch(*args)
        return [self._with_source_after(row) for row in rows], pixels

    def _with_source_after(self, row: TokenRow) -> TokenRow:
        """A row with its two blocks exchanged, ids and labels alike."""
        start, end, vision_end = self.tokenizer.convert_tokens_to_ids([PIXEL_START, PIXEL_END, VISION_END])
        ids = row["input_ids"]
        if start not in ids:
            return row
        first = ids.index(start)
        between = ids.index(end) + 1  # where NaViT's block begins
        last = ids.index(vision_end, between) + 1
        return {
            name: [*values[:first], *values[between:last], *values[first:between], *values[last:]]
            for name, values in row.items()
        }
