"""Further arguments of `forward`: those that transformers itself hands to any model; all others are refused."""

from collections.abc import Iterable

from transformers.generation.continuous_batching.input_outputs import PagedAttentionArgs
from transformers.utils.generic import TransformersKwargs

__all__ = ["refuse_unknown_arguments"]

_PAGED = frozenset(PagedAttentionArgs.__annotations__)  # of continuous batching
# What the vision tower works out from `image_grid_thw`, for those who did so ahead (graphs are traced without the grids'
# values): `image_` and the name of the tower's own argument.
_VISION = frozenset(
    f"image_{name}"
    for name in ("position_ids", "cu_seqlens", "max_seqlen", "window_index", "cu_window_seqlens", "max_window_seqlen")
)
_KNOWN = TransformersKwargs.__optional_keys__ | _PAGED | _VISION


def refuse_unknown_arguments(owner: str, names: Iterable[str]) -> None:
    """Refuses what no model takes, a misspelt argument for example.

    Args:
        owner: of the `forward`, for the error.
        names: as given.

    Raises:
        TypeError: naming them.
    """
    unknown = set(names) - _KNOWN
    if unknown:
        raise TypeError(f"{owner}.forward got unexpected arguments: {sorted(unknown)}.")
