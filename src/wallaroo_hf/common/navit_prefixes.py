"""Prompts as Qwen2.5-VL reads them, from where a cache ends: [`NavitReader`]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import DynamicCache

from .kept_chats import PrefixReader
from .prompt_rows import PromptRow, SeenBlock, joined_tensors, runs, unpadded

__all__ = ["NavitReader", "behind_cache"]

_IMAGE, _VIDEO = 1, 2  # in `mm_token_type_ids`
_NAMES = {_IMAGE: ("pixel_values", "image_grid_thw"), _VIDEO: ("pixel_values_videos", "video_grid_thw")}
# What the processor gives of pictures and videos.
PICTURES = (
    *("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw", "second_per_grid_ts"),
    "source_pixel_values",
)
_SEEN = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")  # what positions are made of


class NavitReader(PrefixReader):
    """Reads prompts of models whose body is Qwen2.5-VL's.

    Args:
        body: a `Qwen2_5_VLModel`.
    """

    def __init__(self, body: Any) -> None:
        super().__init__(body.config.get_text_config())
        self.body = body

    def types(self, ids: torch.Tensor) -> torch.Tensor:
        """`(1, T)`: 1 for tokens of pictures that the vision tower sees, 2 for those of videos, else 0."""
        config = self.body.config
        return (ids == config.image_token_id).long() * _IMAGE + (ids == config.video_token_id).long() * _VIDEO

    def other_blocks(self, ids: torch.Tensor) -> list[tuple[int, int, str]]:
        """Pictures that the vision tower does not see: where they stand in `(1, T)`, and the name of the list of them."""
        return []

    def rows(self, batch: Mapping[str, Any]) -> list[PromptRow]:
        """Rows, as the vision tower sees their pictures and videos; see [`PrefixReader.rows`].

        Args:
            batch: see there.

        Raises:
            ValueError: if there are not as many pictures as places for them.
        """
        seen = {kind: _Seen(batch, *names) for kind, names in _NAMES.items()}
        lists: dict[str, list[torch.Tensor]] = {}
        rows = []
        for ids in unpadded(batch):
            blocks = []
            types = self.types(ids)[0]
            for kind, queue in seen.items():
                blocks += [SeenBlock(start, end, queue.next()) for start, end in runs(types == kind)]
            for start, end, name in self.other_blocks(ids):
                left = lists.setdefault(name, list(batch.get(name) or ()))
                if not left:
                    raise ValueError(f"The prompts show more than `{name}` has; pass all of the processor's tensors.")
                blocks.append(SeenBlock(start, end, {name: [left.pop(0)]}))
            rows.append(PromptRow(ids, sorted(blocks, key=lambda block: block.start)))
        return rows

    def positions(self, row: PromptRow) -> torch.Tensor:
        """Positions `(3, 1, T)`: of pictures two-dimensional.

        Args:
            row: all of it.
        """
        tensors = row.tensors()
        grids = {name: tensors[name] for name in _SEEN if name in tensors}
        if not grids:
            return torch.arange(len(row), device=row.ids.device).expand(3, 1, -1)
        positions: torch.Tensor = self.body.get_rope_index(row.ids, self.types(row.ids), **grids)[0]
        return positions

    def read(self, row: PromptRow, cache: DynamicCache) -> Any:
        """See [`PrefixReader.read`].

        Args:
            row: what is read.
            cache: is filled.
        """
        start, stop = int(cache.get_seq_length()), len(row) - 1
        if start >= stop:
            return None
        tensors = row.tensors(start)
        return self.body(
            input_ids=row.ids[:, start:stop],
            mm_token_type_ids=self.types(row.ids)[:, start:stop],
            position_ids=self.positions(row)[:, :, start:stop],
            cache=cache,
            use_cache=True,
            **tensors,
        )


class _Seen:
    """The pictures, or the videos, of a batch, one after the other."""

    def __init__(self, batch: Mapping[str, Any], pixels: str, grids: str) -> None:
        self._pixels, self._grids = pixels, grids
        self._patches, self._sizes = batch.get(pixels), batch.get(grids)
        self._seconds = batch.get("second_per_grid_ts") if pixels == "pixel_values_videos" else None
        self._number = self._patch = 0

    def next(self) -> dict[str, Any]:
        """The tensors of the next one."""
        if self._patches is None or self._sizes is None or self._number >= len(self._sizes):
            raise ValueError(
                f"The prompts show more than `{self._pixels}` and `{self._grids}` have; pass all of the processor's "
                "tensors."
            )
        one = slice(self._number, self._number + 1)
        count = int(self._sizes[one].prod())
        tensors = {self._pixels: self._patches[self._patch : self._patch + count], self._grids: self._sizes[one]}
        if self._seconds is not None:
            tensors["second_per_grid_ts"] = torch.as_tensor(self._seconds)[one]
        self._number, self._patch = self._number + 1, self._patch + count
        return tensors


def behind_cache(reader: NavitReader, ids: torch.Tensor | None, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `generate` for whole prompts whose beginning is in `cache`, as it can take them.

    Pictures that the cache holds are left out, and positions are those of all of the prompt.

    Args:
        reader: reads prompts of the model.
        ids: of the prompts, `(B, T)`.
        kwargs: as given; are returned unchanged where there is nothing in the cache, or no picture.

    Raises:
        ValueError: if the cache ends within a picture, or there are not as many pictures as places for them.
    """
    cache, mask = kwargs.get("cache"), kwargs.get("attention_mask")
    past = 0 if cache is None else int(cache.get_seq_length())
    names = [name for name in PICTURES if kwargs.get(name) is not None]
    if not past or not names or kwargs.get("position_ids") is not None or ids is None or past >= ids.shape[1]:
        return kwargs
    rows = reader.rows({**kwargs, "input_ids": ids})
    shown = torch.ones_like(ids) if mask is None else mask
    pads = (shown.cumsum(-1) == 0).sum(-1).tolist()
    left = joined_tensors(row.tensors(max(past - pad, 0)) for row, pad in zip(rows, pads, strict=True))
    positions = torch.ones(4, *ids.shape, dtype=torch.int64, device=ids.device)
    positions[0] = (shown.long().cumsum(-1) - 1).clamp(min=0)
    for index, row in enumerate(rows):
        positions[1:, index, shown[index].bool()] = reader.positions(row)[:, 0].to(positions)
    rest = {name: value for name, value in kwargs.items() if name not in names}
    return {**rest, **left, "position_ids": positions}
