"""Draws the posters: twelve flat pictures of everyday things, eight edits of them, and questions about them.

python examples/finetune/draw_posters.py
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from write_rows import write_rows

FOLDER = Path(__file__).resolve().parent / "posters"
SIZE = 192
FINE = 4  # drawn that much larger, then scaled down, for smooth edges

CREAM, INK = "#f6ecd9", "#22344a"
RED, BRICK, ORANGE, MUSTARD = "#d9483b", "#a8392f", "#ee8a44", "#f2b84b"
GREEN, FOREST, SAGE, TEAL, PETROL = "#57a466", "#3b7a4c", "#b7d3b0", "#2f8f8b", "#1f6a6b"
BLUE, NAVY, SKY, ROSE, PINK = "#3f74b5", "#2b4f82", "#b9dbe6", "#f3c6bd", "#e88aa0"
SAND, WOOD, BARK, WHITE = "#ecd2a0", "#b57c4b", "#8a5a36", "#fffaf0"
NIGHT, MOON, GLOW = "#2c3a63", "#f7e7a8", "#ffd766"

Point = tuple[float, float]


class Canvas:
    """A picture in units of 1/192 of its edge."""

    def __init__(self, background: str) -> None:
        self.image = Image.new("RGB", (SIZE * FINE, SIZE * FINE), background)
        self.draw = ImageDraw.Draw(self.image)

    def _scaled(self, points: Iterable[Point]) -> list[Point]:
        return [(x * FINE, y * FINE) for x, y in points]

    def shape(self, points: Iterable[Point], fill: str) -> None:
        """A polygon."""
        self.draw.polygon(self._scaled(points), fill=fill)

    def blob(self, points: Sequence[Point], fill: str) -> None:
        """A smooth closed curve through points."""
        self.shape(smooth(points), fill)

    def disc(self, x: float, y: float, rx: float, fill: str, ry: float | None = None) -> None:
        """A circle or ellipse around a centre."""
        ry = rx if ry is None else ry
        self.draw.ellipse(self._scaled([(x - rx, y - ry), (x + rx, y + ry)]), fill=fill)

    def box(self, left: float, top: float, right: float, bottom: float, fill: str, radius: float = 0) -> None:
        """A rectangle, its corners rounded."""
        self.draw.rounded_rectangle(self._scaled([(left, top), (right, bottom)]), radius * FINE, fill=fill)

    def line(self, points: Sequence[Point], fill: str, width: float) -> None:
        """A line with round ends."""
        self.draw.line(self._scaled(points), fill=fill, width=round(width * FINE), joint="curve")
        for x, y in (points[0], points[-1]):
            self.disc(x, y, width / 2, fill)

    def slice(self, x: float, y: float, r: float, start: float, end: float, fill: str) -> None:
        """A piece of a disc, angles in degrees clockwise from the right."""
        self.draw.pieslice(self._scaled([(x - r, y - r), (x + r, y + r)]), start, end, fill=fill)

    def picture(self) -> Image.Image:
        """The picture at its size, in few colours."""
        small = self.image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
        return small.quantize(48, dither=Image.Dither.NONE)


def smooth(points: Sequence[Point], steps: int = 16) -> list[Point]:
    """A closed Catmull-Rom curve."""
    curve, count = [], len(points)
    for index in range(count):
        before, a, b, after = (points[(index + offset) % count] for offset in (-1, 0, 1, 2))
        for step in range(steps):
            t = step / steps
            curve.append(
                tuple(
                    0.5
                    * (
                        2 * a[axis]
                        + (b[axis] - before[axis]) * t
                        + (2 * before[axis] - 5 * a[axis] + 4 * b[axis] - after[axis]) * t**2
                        + (3 * a[axis] - before[axis] - 3 * b[axis] + after[axis]) * t**3
                    )
                    for axis in (0, 1)
                )
            )
    return [(x, y) for x, y in curve]


# The upper half of a circle around 0.
HALF = [(math.cos(math.radians(angle)), -math.sin(math.radians(angle))) for angle in range(0, 181, 3)]


@dataclass(frozen=True)
class Look:
    """Colours and details of a poster, which edits change.

    Attributes:
        paper: background.
        sun: the disc behind the thing.
        main, shade: the thing's colour, in light and in shadow.
        night: moon and stars instead of the sun; windows and lamps glow.
        extra: whether the thing has its detail (steam, flower, stripes).
    """

    paper: str
    sun: str
    main: str
    shade: str
    night: bool = False
    extra: bool = False


def scene(look: Look) -> Canvas:
    """Paper, sun or moon, and the shadow on the ground."""
    canvas = Canvas(NIGHT if look.night else look.paper)
    if look.night:
        canvas.disc(148, 42, 19, MOON)
        canvas.disc(140, 37, 17, NIGHT)
        for x, y, r in ((30, 34, 2.2), (58, 20, 1.6), (96, 30, 1.8), (24, 84, 1.6), (172, 88, 2), (118, 16, 1.5)):
            canvas.disc(x, y, r, MOON)
    else:
        canvas.disc(96, 90, 68, look.sun)
    return canvas


def apple(look: Look) -> Canvas:
    """An apple with a leaf."""
    canvas = scene(look)
    canvas.disc(96, 160, 46, INK, 6)
    canvas.line([(97, 62), (100, 46), (108, 36)], BARK, 6)
    canvas.blob([(106, 50), (120, 34), (144, 34), (130, 52)], FOREST)
    body = [(96, 66), (118, 56), (144, 68), (150, 100), (136, 140), (112, 156), (96, 152)]
    canvas.blob([*body, (80, 156), (56, 140), (42, 100), (48, 68), (74, 56)], look.main)
    canvas.blob([(118, 57), (144, 68), (150, 100), (136, 140), (112, 156), (128, 124), (132, 88)], look.shade)
    canvas.blob([(56, 86), (64, 72), (74, 70), (66, 84), (60, 104)], WHITE)
    return canvas


def balloon(look: Look) -> Canvas:
    """A hot-air balloon over clouds."""
    canvas = scene(look)
    for x, y in ((36, 150), (158, 132)):
        canvas.disc(x, y, 16, WHITE, 10)
        canvas.disc(x + 15, y + 4, 14, WHITE, 8)
        canvas.disc(x - 14, y + 4, 13, WHITE, 8)
    for x in (80, 112):
        canvas.line([(x, 112), (96 + (x - 96) * 0.55, 146)], INK, 2)
    envelope = [(96, 22), (130, 34), (146, 68), (132, 102), (108, 126), (84, 126), (60, 102), (46, 68), (62, 34)]
    canvas.blob(envelope, look.main)
    if look.extra:
        canvas.blob([(96, 22), (108, 48), (109, 96), (101, 127), (91, 127), (83, 96), (84, 48)], TEAL)
        canvas.blob([(70, 29), (58, 48), (58, 84), (74, 118), (66, 110), (48, 82), (47, 54)], TEAL)
    canvas.blob([(112, 25), (130, 34), (146, 68), (132, 102), (108, 126), (126, 84), (126, 50)], look.shade)
    canvas.box(84, 146, 108, 164, WOOD, 4)
    canvas.box(84, 146, 108, 151, BARK, 2)
    return canvas


def cactus(look: Look) -> Canvas:
    """A cactus in a pot."""
    canvas = scene(look)
    canvas.disc(96, 166, 44, INK, 6)
    canvas.line([(96, 112), (62, 108), (58, 100), (58, 76)], look.main, 18)
    canvas.line([(96, 96), (130, 92), (134, 84), (134, 62)], look.shade, 18)
    canvas.box(78, 34, 114, 134, look.main, 18)
    canvas.box(98, 36, 114, 134, look.shade, 14)
    for y in (58, 78, 98, 118):
        canvas.line([(86, y), (90, y + 5)], CREAM, 2)
        canvas.line([(104, y - 8), (108, y - 3)], CREAM, 2)
    if look.extra:
        for turn in range(5):
            angle = math.radians(turn * 72 - 90)
            canvas.disc(96 + 11 * math.cos(angle), 32 + 11 * math.sin(angle), 8, PINK)
        canvas.disc(96, 32, 7, MUSTARD)
    canvas.shape([(62, 128), (130, 128), (121, 166), (71, 166)], RED)
    canvas.shape([(104, 128), (130, 128), (121, 166), (104, 166)], BRICK)
    canvas.box(57, 120, 135, 135, RED, 4)
    return canvas


def fish(look: Look) -> Canvas:
    """A fish with bubbles."""
    canvas = scene(look)
    for x, y, r in ((40, 60, 8), (28, 42, 5), (44, 34, 4)):
        canvas.disc(x, y, r, WHITE)
        canvas.disc(x, y, r - 2, look.sun if r > 4 else WHITE)
    canvas.shape(smooth([(126, 96), (168, 62), (160, 96), (168, 130)]), look.shade)
    canvas.blob([(88, 60), (104, 40), (124, 44), (118, 70)], look.shade)
    canvas.blob([(30, 98), (54, 70), (92, 60), (126, 76), (144, 96), (126, 116), (92, 134), (54, 124)], look.main)
    canvas.blob([(30, 98), (56, 112), (96, 116), (144, 96), (126, 116), (92, 134), (54, 124)], look.shade)
    for x in (88, 106, 122):
        canvas.draw.arc(canvas._scaled([(x - 12, 80), (x + 6, 112)]), -70, 70, fill=CREAM, width=3 * FINE)
    canvas.disc(56, 88, 8, WHITE)
    canvas.disc(54, 88, 4, INK)
    return canvas


def house(look: Look) -> Canvas:
    """A house with a tree beside it."""
    canvas = scene(look)
    ground = FOREST if look.night else GREEN
    canvas.blob([(-30, 160), (40, 146), (96, 152), (160, 144), (222, 160), (222, 222), (-30, 222)], ground)
    canvas.box(152, 112, 160, 152, BARK, 2)
    canvas.disc(156, 98, 22, PETROL if look.night else FOREST)
    canvas.box(112, 42, 124, 76, BRICK)
    canvas.box(50, 84, 134, 156, CREAM)
    canvas.box(104, 84, 134, 156, SAND)
    canvas.shape([(38, 88), (92, 42), (146, 88)], look.main)
    canvas.shape([(92, 42), (146, 88), (112, 88)], look.shade)
    light = GLOW if look.night else SKY
    for left in (58, 110):
        canvas.box(left, 100, left + 18, 120, INK, 2)
        canvas.box(left + 2, 102, left + 16, 118, light)
        canvas.line([(left + 9, 102), (left + 9, 118)], INK, 1.6)
        canvas.line([(left + 2, 110), (left + 16, 110)], INK, 1.6)
    canvas.box(84, 118, 102, 156, look.shade, 3)
    canvas.disc(98, 138, 2, GLOW)
    return canvas


def lamp(look: Look) -> Canvas:
    """A desk lamp on a table."""
    canvas = scene(look)
    canvas.box(0, 160, 192, 192, WOOD)
    canvas.box(0, 160, 192, 166, BARK)
    if look.extra:
        canvas.shape([(42, 90), (92, 74), (124, 160), (12, 160)], GLOW)
    canvas.line([(120, 154), (136, 104), (88, 58)], INK, 6)
    canvas.disc(136, 104, 6, look.shade)
    canvas.box(94, 150, 146, 161, look.shade, 5)
    canvas.blob([(40, 92), (50, 58), (76, 40), (96, 54), (94, 74)], look.main)
    canvas.blob([(76, 40), (96, 54), (94, 74), (76, 78), (82, 58)], look.shade)
    canvas.disc(68, 86, 9, GLOW)
    canvas.shape([(38, 94), (96, 72), (94, 68), (38, 88)], look.shade)
    return canvas


def lighthouse(look: Look) -> Canvas:
    """A lighthouse on a rock by the sea."""
    canvas = scene(look)
    if look.night:
        canvas.shape([(96, 46), (-8, 14), (-8, 74)], GLOW)
    canvas.box(0, 142, 192, 192, NAVY if look.night else TEAL)
    for x, y in ((20, 156), (150, 150), (60, 178), (172, 172), (118, 184)):
        canvas.line([(x - 10, y), (x + 10, y)], BLUE if look.night else SKY, 2.4)
    canvas.blob([(46, 158), (70, 136), (110, 130), (146, 144), (156, 162), (100, 172)], INK)
    canvas.shape([(80, 62), (112, 62), (122, 140), (70, 140)], WHITE)
    for top, bottom in ((78, 96), (114, 130)):
        left, right = (lambda y: 80 - (y - 62) * 10 / 78), (lambda y: 112 + (y - 62) * 10 / 78)
        canvas.shape([(left(top), top), (right(top), top), (right(bottom), bottom), (left(bottom), bottom)], look.main)
    canvas.shape([(102, 62), (112, 62), (122, 140), (106, 140)], look.shade)
    canvas.box(74, 56, 118, 63, INK, 2)
    canvas.box(84, 38, 108, 56, GLOW if look.night else SKY)
    canvas.line([(96, 38), (96, 56)], INK, 2)
    canvas.shape([(78, 40), (96, 22), (114, 40)], look.shade)
    canvas.disc(96, 22, 3, INK)
    return canvas


def mug(look: Look) -> Canvas:
    """A mug, with steam or without."""
    canvas = scene(look)
    canvas.disc(92, 162, 56, INK, 6)
    if look.extra:
        for x in (66, 90, 114):
            canvas.line([(x + 5 * math.sin(y / 7), y) for y in range(24, 62, 2)], WHITE, 5)
    canvas.draw.ellipse(canvas._scaled([(116, 92), (160, 138)]), outline=look.shade, width=11 * FINE)
    canvas.box(44, 78, 134, 162, look.main, 16)
    canvas.box(44, 78, 134, 104, look.main)
    canvas.box(112, 84, 134, 162, look.shade, 14)
    canvas.box(112, 84, 124, 162, look.shade)
    canvas.disc(89, 80, 45, look.shade, 9)
    canvas.disc(89, 81, 39, BARK, 6)
    for x in (71, 85):
        canvas.disc(x, 118, 8, CREAM)
    canvas.shape([(64.5, 122.5), (91.5, 122.5), (78, 138)], CREAM)
    return canvas


def mushroom(look: Look) -> Canvas:
    """A mushroom with spots, and a small one beside it."""
    canvas = scene(look)
    canvas.blob([(-30, 158), (50, 150), (120, 156), (222, 148), (222, 222), (-30, 222)], FOREST)
    for x, y, scale in ((92, 106, 1.0), (146, 138, 0.42)):  # of the cap's lower edge

        def at(*points: Point, x: float = x, y: float = y, scale: float = scale) -> list[Point]:
            return [(x + dx * scale, y + dy * scale) for dx, dy in points]

        canvas.blob(at((-18, 0), (18, 0), (24, 60), (-24, 60)), CREAM)
        canvas.blob(at((4, 0), (18, 0), (24, 60), (8, 60)), SAND)
        canvas.slice(x, y, 58 * scale, 180, 360, look.main)
        canvas.disc(x, y, 58 * scale, look.shade, 9 * scale)
        for (dx, dy), radius in zip(at((-26, -26), (4, -46), (28, -20), (-4, -16)), (9, 8, 11, 6)):
            canvas.disc(dx, dy, radius * scale, WHITE)
    return canvas


def sailboat(look: Look) -> Canvas:
    """A sailboat on the sea."""
    canvas = scene(look)
    canvas.box(0, 138, 192, 192, TEAL)
    canvas.line([(98, 26), (98, 136)], BARK, 5)
    canvas.shape([(104, 32), (154, 118), (104, 124)], look.shade)
    canvas.shape([(92, 40), (92, 124), (44, 116)], look.main)
    canvas.shape([(98, 26), (98, 38), (80, 32)], RED)
    canvas.shape([(34, 128), (162, 128), (144, 156), (56, 156)], BARK)
    canvas.shape([(34, 128), (162, 128), (158, 135), (38, 135)], WOOD)
    canvas.blob(
        [(-30, 158), (20, 150), (60, 157), (100, 150), (140, 157), (180, 150), (222, 158), (222, 222), (-30, 222)],
        PETROL,
    )
    for x, y in ((28, 172), (84, 168), (140, 174), (112, 184)):
        canvas.line([(x - 9, y), (x + 9, y)], SKY, 2.4)
    return canvas


def teapot(look: Look) -> Canvas:
    """A teapot."""
    canvas = scene(look)
    canvas.disc(96, 158, 50, INK, 6)
    canvas.draw.ellipse(canvas._scaled([(20, 78), (66, 132)]), outline=look.shade, width=9 * FINE)
    canvas.blob([(128, 122), (150, 104), (156, 82), (172, 76), (170, 92), (160, 124), (136, 144)], look.shade)
    canvas.blob([(96, 70), (132, 82), (144, 112), (130, 146), (96, 156), (62, 146), (48, 112), (60, 82)], look.main)
    canvas.blob([(120, 76), (132, 82), (144, 112), (130, 146), (106, 155), (122, 130), (126, 98)], look.shade)
    canvas.disc(96, 76, 30, look.shade, 7)
    canvas.slice(96, 76, 27, 180, 360, look.main)
    canvas.disc(96, 46, 7, MUSTARD)
    for x in (68, 84, 100, 116):
        canvas.disc(x, 112 + (4 if x in (84, 100) else 0), 5, CREAM)
    return canvas


def umbrella(look: Look) -> Canvas:
    """An open umbrella in the rain."""
    canvas = scene(look)
    for x, y in ((24, 40), (52, 22), (150, 26), (174, 54), (20, 96), (176, 108), (36, 140), (150, 150)):
        canvas.line([(x, y), (x - 4, y + 11)], BLUE, 3)
    canvas.line([(96, 34), (96, 148), (100, 157), (110, 157), (114, 148)], BARK, 6)
    for rx, colour in ((66, look.shade), (44, look.main), (16, look.shade)):
        canvas.shape([(96 + rx * x, 104 + 66 * y) for x, y in HALF], colour)
    for x in (41, 66, 96, 126, 151):
        canvas.disc(x, 105, 16, look.sun, 8)
    canvas.line([(96, 100), (96, 148)], BARK, 6)
    canvas.line([(96, 30), (96, 40)], BARK, 5)
    return canvas


Poster = tuple[Callable[[Look], Canvas], Look, str, str]
POSTERS: dict[str, Poster] = {
    "apple": (apple, Look(SAGE, CREAM, RED, BRICK), "a red apple", "一个红苹果"),
    "balloon": (balloon, Look(SKY, CREAM, ORANGE, RED), "an orange hot-air balloon", "一个橙色的热气球"),
    "cactus": (cactus, Look(ROSE, CREAM, GREEN, FOREST), "a green cactus in a pot", "一盆绿色的仙人掌"),
    "fish": (fish, Look(TEAL, SKY, ORANGE, RED), "an orange fish with bubbles", "一条吐泡泡的橙色小鱼"),
    "house": (house, Look(SKY, CREAM, RED, BRICK), "a house with a red roof", "一座红屋顶的房子"),
    "lamp": (lamp, Look(MUSTARD, CREAM, TEAL, PETROL), "a teal desk lamp", "一盏青色的台灯"),
    "lighthouse": (lighthouse, Look(SKY, ROSE, RED, BRICK), "a lighthouse by the sea", "海边的一座灯塔"),
    "mug": (mug, Look(SAND, ROSE, BLUE, NAVY, extra=True), "a steaming blue mug", "一个冒着热气的蓝色杯子"),
    "mushroom": (mushroom, Look(SAGE, CREAM, RED, BRICK), "a red mushroom with white spots", "一朵带白点的红蘑菇"),
    "sailboat": (sailboat, Look(ROSE, CREAM, WHITE, SAND), "a sailboat with white sails", "一艘白帆的帆船"),
    "teapot": (teapot, Look(CREAM, SAGE, PINK, RED), "a pink teapot", "一个粉色的茶壶"),
    "umbrella": (umbrella, Look(SAND, SKY, MUSTARD, ORANGE), "a yellow umbrella in the rain", "雨中的一把黄伞"),
}

# What is edited, the look after it, and the instruction.
EDITS: dict[str, tuple[str, dict[str, Any], str]] = {
    "apple-green": ("apple", {"main": GREEN, "shade": FOREST}, "Make the apple green."),
    "balloon-stripes": ("balloon", {"extra": True}, "给热气球加上条纹"),
    "cactus-flower": ("cactus", {"extra": True}, "Add a pink flower on top of the cactus."),
    "house-night": ("house", {"night": True}, "Make it night, with lights in the windows."),
    "lamp-on": ("lamp", {"extra": True}, "把台灯打开"),
    "lighthouse-night": ("lighthouse", {"night": True}, "变成夜晚，灯塔亮起来"),
    "mug-cold": ("mug", {"extra": False}, "Remove the steam."),
    "sailboat-red": ("sailboat", {"main": RED, "shade": BRICK}, "把帆变成红色"),
}

QUESTIONS: list[tuple[str, str, str]] = [
    ("apple", "What is in the picture?", "A red apple."),
    ("apple", "图里是什么？", "一个红苹果。"),
    ("balloon", "What colour is the balloon?", "Orange."),
    ("cactus", "What stands in the pot?", "A cactus."),
    ("fish", "图里有什么动物？", "一条鱼。"),
    ("house", "What colour is the roof?", "Red."),
    ("lamp", "台灯是什么颜色？", "青色。"),
    ("lighthouse", "Where is the lighthouse?", "On a rock by the sea."),
    ("mug", "Is the drink hot?", "Yes, it steams."),
    ("mushroom", "How many mushrooms are there?", "Two."),
    ("teapot", "这是什么？", "一个粉色的茶壶。"),
    ("umbrella", "What is the weather like?", "It rains."),
]


def main(folder: Path = FOLDER) -> None:
    """Draws and writes everything."""
    pictures = {name: draw(look).picture() for name, (draw, look, _, _) in POSTERS.items()}
    captions = [
        (name, f"{caption}, flat poster" if caption.isascii() else f"{caption}，扁平海报")
        for name, (_, _, *both) in POSTERS.items()
        for caption in both
    ]
    edited = {}
    for name, (thing, changes, instruction) in EDITS.items():
        draw, look, _, _ = POSTERS[thing]
        edited[name] = (thing, draw(replace(look, **changes)).picture(), instruction)
    write_rows(folder, pictures, captions, edited, QUESTIONS)


if __name__ == "__main__":
    main()
