"""The colours of the scenes: eight for objects and four for backgrounds, every two of them far apart in RGB."""

from __future__ import annotations

RGB = tuple[int, int, int]

OBJECT_COLOURS: dict[str, RGB] = {
    "red": (218, 38, 44),
    "green": (34, 150, 70),
    "blue": (30, 86, 214),
    "yellow": (255, 214, 20),
    "orange": (246, 126, 20),
    "purple": (124, 48, 170),
    "pink": (250, 112, 182),
    "cyan": (52, 206, 220),
}

BACKGROUND_COLOURS: dict[str, RGB] = {
    "white": (250, 250, 250),
    "black": (22, 23, 28),
    "grey": (138, 142, 150),
    "beige": (228, 205, 160),
}

COLOURS = tuple(OBJECT_COLOURS)
BACKGROUNDS = tuple(BACKGROUND_COLOURS)
