"""From a picture back to what it shows, without anything learned: the eyes of the judge.

A pixel is explained as a mixture of the background and one palette colour, which is what antialiasing, blur and a lossy
tokenizer make of an edge. Connected components of what is mostly not background are the objects; each is compared with
the eight shapes, slid to where it is. Nothing is assumed about the lattice, only that objects have the size that
`render` gives them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .palette import BACKGROUND_COLOURS, BACKGROUNDS, COLOURS, OBJECT_COLOURS
from .shapes import SHAPES, SLOT, coverage

_OBJECT_RGB = np.array(list(OBJECT_COLOURS.values()), dtype=np.float32)  # (8, 3)
_BACKGROUND_RGB = np.array(list(BACKGROUND_COLOURS.values()), dtype=np.float32)  # (4, 3)
_BORDER = 2  # pixels along the edges of a picture that no object of `render` touches
_MIN_BORDER_SHARE = 0.6  # of the border that must have the colour of the background
_MIN_AREA = 40  # pixels; smaller specks are noise (the smallest shape, the star, has 298)
_MIN_COLOUR_SHARE = 0.7  # of an object that must have its colour
_MAX_COLOUR_ERROR = 60.0  # RGB distance from the palette colour that is nearest; the closest two are 88 apart
_MIN_OVERLAP = 0.7  # intersection over union with the best shape
_CONTRAST = 2.0  # steepens blurred edges before shapes are compared
_WINDOW = 44  # pixels; side of the window in which shapes are compared
_FRINGE = 2  # pixels around a component that belong to its blurred edge


@dataclass(frozen=True)
class ReadObject:
    """One object found in a picture.

    Attributes:
        shape: one of `shapes.SHAPES`, or None if it looks like none of them.
        colour: one of `palette.COLOURS`, or None if it is none of them or a mixture.
        centre: `(y, x)` in pixels: of the slot that the shape would fill, or of the box if the shape is None.
        box: `(top, left, bottom, right)` in pixels, the latter two exclusive.
        overlap: intersection over union with the shape, in [0, 1].
    """

    shape: str | None
    colour: str | None
    centre: tuple[float, float]
    box: tuple[int, int, int, int]
    overlap: float

    def __str__(self) -> str:
        return f"{self.colour or 'unclear'} {self.shape or 'thing'}"


@dataclass(frozen=True)
class ReadScene:
    """What a picture shows.

    Attributes:
        height: in pixels.
        width: in pixels.
        background: one of `palette.BACKGROUNDS`, or None if it is none of them; then no objects are looked for.
        objects: in reading order of their centres' slots.
    """

    height: int
    width: int
    background: str | None
    objects: tuple[ReadObject, ...]

    @property
    def grid(self) -> tuple[int, int]:
        """Numbers of slots: `(rows, cols)`."""
        return max(1, round(self.height / SLOT)), max(1, round(self.width / SLOT))

    def slot(self, thing: ReadObject) -> tuple[int, int]:
        """The slot `(row, col)` in which an object's centre lies."""
        rows, cols = self.grid
        y, x = thing.centre
        return min(rows - 1, int(y * rows / self.height)), min(cols - 1, int(x * cols / self.width))


def read_scene(image: Image.Image | np.ndarray) -> ReadScene:
    """Reads a picture.

    Args:
        image: a picture of any mode, or `(H, W, 3)` uint8 RGB.

    Raises:
        ValueError: for an array of another shape or dtype.
    """
    pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(
            f"a picture must be (H, W, 3) uint8, not {pixels.shape} {pixels.dtype}: convert it to RGB first"
        )
    height, width = pixels.shape[:2]
    values = pixels.astype(np.float32)
    background = _read_background(values)
    if background is None:
        return ReadScene(height, width, None, ())
    coverage_map, classes = _explain(values, _BACKGROUND_RGB[background])
    things = []
    for mask, box in _components(coverage_map > 0.5):
        if mask.sum() >= _MIN_AREA:
            things.append(_read_object(values, classes, mask, box, _BACKGROUND_RGB[background]))
    scene = ReadScene(height, width, BACKGROUNDS[background], tuple(things))
    ordered = sorted(things, key=lambda thing: (scene.slot(thing), thing.centre))
    return ReadScene(height, width, scene.background, tuple(ordered))


def _read_background(values: np.ndarray) -> int | None:
    """Index of the background colour that most of the border has, or None."""
    border = np.ones(values.shape[:2], dtype=bool)
    border[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
    palette = np.concatenate([_BACKGROUND_RGB, _OBJECT_RGB])
    edge = values[border]  # (N, 3)
    squares = (edge**2).sum(axis=1)[:, None] - 2 * edge @ palette.T + (palette**2).sum(axis=1)  # (N, 12)
    nearest = squares.argmin(axis=1)
    nearest[squares.min(axis=1) > _MAX_COLOUR_ERROR**2] = len(palette)
    counts = np.bincount(nearest, minlength=len(BACKGROUNDS))
    best = int(counts[: len(BACKGROUNDS)].argmax())
    return best if counts[best] >= _MIN_BORDER_SHARE * len(nearest) else None


def _explain(values: np.ndarray, background: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much of each pixel is not background, `(H, W)` in [0, 1], and which object colour that is, `(H, W)`."""
    rays = _OBJECT_RGB - background  # (8, 3)
    squares = (rays**2).sum(axis=1)
    offsets = (values - background).reshape(-1, 3)
    share = np.zeros(len(offsets), dtype=np.float32)
    classes = np.zeros(len(offsets), dtype=np.intp)
    far = np.flatnonzero(np.einsum("ij,ij->i", offsets, offsets) > 30.0**2)
    products = offsets[far] @ rays.T  # (N, 8)
    along = np.clip(products / squares, 0, 1)
    misfit = along * (along * squares - 2 * products)  # squared distance from the ray, up to the offset's own square
    classes[far] = misfit.argmin(axis=1)
    share[far] = along[np.arange(len(far)), classes[far]]
    return share.reshape(values.shape[:2]), classes.reshape(values.shape[:2])


def _components(mask: np.ndarray) -> list[tuple[np.ndarray, tuple[int, int, int, int]]]:
    """Connected components (diagonal neighbours count): each one's mask within its box, and the box."""
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    runs = list(zip(rows.tolist(), starts.tolist(), ends.tolist()))
    parent = list(range(len(runs)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    above = 0  # the first run that can still touch the present one from the row above
    for index, (row, start, end) in enumerate(runs):
        while runs[above][0] < row - 1 or (runs[above][0] == row - 1 and runs[above][2] < start):
            above += 1
        other = above
        while runs[other][0] == row - 1 and runs[other][1] <= end:
            parent[root(other)] = root(index)
            other += 1
    members: dict[int, list[tuple[int, int, int]]] = {}
    for index, run in enumerate(runs):
        members.setdefault(root(index), []).append(run)
    found = []
    for own in members.values():
        top, bottom = own[0][0], own[-1][0] + 1
        left, right = min(run[1] for run in own), max(run[2] for run in own)
        inside = np.zeros((bottom - top, right - left), dtype=bool)
        for row, start, end in own:
            inside[row - top, start - left : end - left] = True
        found.append((inside, (top, left, bottom, right)))
    return found


def _read_object(
    values: np.ndarray,
    classes: np.ndarray,
    mask: np.ndarray,
    box: tuple[int, int, int, int],
    background: np.ndarray,
) -> ReadObject:
    top, left, bottom, right = box
    votes = np.bincount(classes[top:bottom, left:right][mask], minlength=len(COLOURS))
    colour = int(votes.argmax())
    own = mask & (classes[top:bottom, left:right] == colour)
    ray = _OBJECT_RGB[colour] - background
    # the blurred edge is part of the shape, what lies further away may belong to a neighbour
    y0, x0 = max(0, top - _FRINGE), max(0, left - _FRINGE)
    near = values[y0 : bottom + _FRINGE, x0 : right + _FRINGE] - background
    alpha = np.clip(near @ ray / (ray @ ray), 0, 1)
    inner = alpha[top - y0 : bottom - y0, left - x0 : right - x0]
    core = own & (inner > 0.85)
    mean = values[top:bottom, left:right][core].mean(axis=0) if core.any() else background
    error = float(np.linalg.norm(mean - _OBJECT_RGB[colour]))
    clear = votes[colour] >= _MIN_COLOUR_SHARE * mask.sum() and error <= _MAX_COLOUR_ERROR
    shape, corner, overlap = _match(_steepen(alpha))
    centre = (y0 + corner[0] + SLOT / 2, x0 + corner[1] + SLOT / 2)
    if shape is None:
        centre = ((top + bottom) / 2, (left + right) / 2)
    return ReadObject(shape, COLOURS[colour] if clear else None, centre, box, overlap)


@functools.cache
def _templates() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The shapes slid by up to a pixel: `(72, _WINDOW ** 2)`, their areas `(72,)`, and corners of their slots `(72, 2)`.

    At no slide, a shape's centre of mass is at the centre of the window, to half a pixel.
    """
    masks, corners = [], []
    for shape in SHAPES:
        mask = coverage(shape)
        y, x = (int(_WINDOW // 2 - np.rint(mean)) for mean in _centre_of_mass(mask))
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                window = np.zeros((_WINDOW, _WINDOW), dtype=np.float32)
                window[y + dy : y + dy + SLOT, x + dx : x + dx + SLOT] = mask
                masks.append(window.ravel())
                corners.append((y + dy, x + dx))
    bank = np.stack(masks)
    return bank, bank.sum(axis=1), np.array(corners)


def _steepen(alpha: np.ndarray) -> np.ndarray:
    return np.clip(_CONTRAST * (alpha - 0.5) + 0.5, 0, 1)


def _centre_of_mass(alpha: np.ndarray) -> tuple[float, float]:
    total = alpha.sum()
    rows, cols = np.arange(alpha.shape[0]), np.arange(alpha.shape[1])
    return float(alpha.sum(axis=1) @ rows / total), float(alpha.sum(axis=0) @ cols / total)


def _match(alpha: np.ndarray) -> tuple[str | None, tuple[int, int], float]:
    """The shape that overlaps most with an object, the corner of its slot relative to `alpha`, and the overlap."""
    if max(alpha.shape) > _WINDOW:
        return None, (0, 0), 0.0
    y, x = (int(_WINDOW // 2 - np.rint(mean)) for mean in _centre_of_mass(alpha))
    y, x = (int(np.clip(at, 0, _WINDOW - edge)) for at, edge in zip((y, x), alpha.shape))
    window = np.zeros((_WINDOW, _WINDOW), dtype=np.float32)
    window[y : y + alpha.shape[0], x : x + alpha.shape[1]] = alpha
    bank, areas, corners = _templates()
    common = np.minimum(bank, window.ravel()).sum(axis=1)
    overlaps = common / (areas + window.sum() - common)
    best = int(overlaps.argmax())
    overlap = float(overlaps[best])
    corner = (int(corners[best, 0]) - y, int(corners[best, 1]) - x)
    return (SHAPES[best // 9] if overlap >= _MIN_OVERLAP else None), corner, overlap
