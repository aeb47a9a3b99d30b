"""What of a caption a picture shows, part by part: where a whole picture is seldom right, parts tell who is nearer."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from .reading import ReadScene, read_scene
from .specs import CaptionSpec
from .verify import Picture, check_caption

__all__ = ["FAILURES", "PARTS", "first_failure", "judge_parts"]

PARTS = ("background", "count", "shape", "colour")
FAILURES = (*PARTS, "place")


def judge_parts(image: Picture, spec: CaptionSpec) -> dict[str, bool | None]:
    """Which parts of a caption a picture shows, each for itself.

    Args:
        image: the picture, `(H, W, 3)` uint8 RGB, or what was read from one.
        spec: what it must show.

    Returns:
        For each of `PARTS`: whether the background is one of the palette's, and the one named; whether there are as many
        objects as asked for; whether all shapes, and all colours, that are named are there as often as they are named (None
        if none is named).
    """
    scene = image if isinstance(image, ReadScene) else read_scene(image)
    count = sum(group.count for group in spec.objects)
    return {
        "background": scene.background is not None and spec.background in (None, scene.background),
        "count": scene.background is not None and len(scene.objects) == count,
        "shape": _holds([thing.shape for thing in scene.objects], [(one.shape, one.count) for one in spec.objects]),
        "colour": _holds([thing.colour for thing in scene.objects], [(one.colour, one.count) for one in spec.objects]),
    }


def _holds(found: list[str | None], named: list[tuple[str | None, int]]) -> bool | None:
    """Whether what is named is found as often; None if nothing is named."""
    wanted: Counter[str] = Counter()
    for name, count in named:
        if name is not None:
            wanted[name] += count
    return None if not wanted else not wanted - Counter(name for name in found if name is not None)


def first_failure(image: Picture, spec: CaptionSpec) -> str | None:
    """What is wrong first with a picture, in the order in which the judge looks.

    Args:
        image: the picture, `(H, W, 3)` uint8 RGB, or what was read from one.
        spec: what it must show.

    Returns:
        One of `FAILURES`: the first of `PARTS` that is wrong; "colour" also where shapes and colours are all there, but not
        on the right objects; "place" where nothing but where objects stand is wrong. None if nothing is.
    """
    scene = image if isinstance(image, ReadScene) else read_scene(image)
    if check_caption(scene, spec):
        return None
    wrong = next((part for part, found in judge_parts(scene, spec).items() if found is False), None)
    if wrong is not None:
        return wrong
    anywhere = CaptionSpec(tuple(replace(one, place=None) for one in spec.objects), (), spec.background)
    return "place" if check_caption(scene, anywhere) else "colour"
