"""Counting the scans of JPEG data: each costs a pass over all pixels, however few bytes it has."""

import re

__all__ = ["count_scans"]

_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
# What stands between two segments is skipped by every decoder: entropy-coded bytes, in which 0xFF is written 0xFF00,
# restart marks (D0-D7), and 01, which has no segment either.
_MARK = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]")
_START_OF_IMAGE = b"\xff\xd8"


def count_scans(data: bytes, start: int = 0, stop: int | None = None) -> int:
    """How many scans a decoder finds in a JPEG picture: those up to its end-of-image mark, whatever follows (more pictures,
    a film), and none in the segments that it skips, such as those with a preview of the picture.

    Args:
        data: what holds the picture. Where it is broken off, the scans up to there are counted.
        start, stop: where the picture begins, and the last offset at which it may end.
    """
    stop = len(data) if stop is None else stop
    scans = 0
    position = start + len(_START_OF_IMAGE)
    while (mark := _MARK.search(data, position, stop)) is not None:
        code = data[mark.end() - 1]
        if code == _END_OF_IMAGE:
            break
        scans += code == _START_OF_SCAN
        length = int.from_bytes(data[mark.end() : mark.end() + 2], "big")
        position = mark.end() + max(length, 2)
    return scans
