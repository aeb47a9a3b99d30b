"""Which family released files are of."""

from pathlib import Path

from ..families.loading import some
from ..families.registry import FAMILIES, Family
from .released_folders import released_keys

__all__ = ["recognise_family"]


def recognise_family(checkpoint: str | Path) -> Family:
    """The family that the most weights of a released checkpoint are of, by the beginnings of their names.

    Args:
        checkpoint: file or folder, a path or a Hub id.

    Raises:
        ValueError: if there is no such checkpoint, or it is of no family.
    """
    keys = released_keys(checkpoint)
    counts = {}
    for family in FAMILIES.values():
        if family.converter is not None and family.recognises is not None:
            beginnings = tuple(family.resolve("recognises"))
            counts[family.model_type] = sum(key.startswith(beginnings) for key in keys)
    best = max(counts, key=lambda name: counts[name])
    if not counts[best]:
        titles = " or ".join(FAMILIES[name].title for name in counts)
        raise ValueError(
            f"The checkpoint '{checkpoint}' is no {titles} as released (it has {some(sorted(keys))}); give the file or "
            "folder that the authors released."
        )
    return FAMILIES[best]
