"""Lays the signs: everyday things out of the shapes that the built-in checkpoint can draw, but has no words for.

python examples/finetune/draw_signs.py
"""

from pathlib import Path

from PIL import Image
from write_rows import write_rows

from wallaroo_hf.scenes.palette import COLOURS
from wallaroo_hf.scenes.render import render
from wallaroo_hf.scenes.scene import Scene, SceneObject
from wallaroo_hf.scenes.shapes import SHAPES

FOLDER = Path(__file__).resolve().parent / "signs"
EDGE = 96  # pixels: three slots
# Letters of the layouts below: colour, then shape; dots are empty.
COLOUR_LETTERS = {colour[0]: colour for colour in COLOURS if colour not in ("pink", "purple")} | {
    "k": "pink",
    "p": "purple",
}
SHAPE_LETTERS = {shape[0]: shape for shape in SHAPES if shape not in ("star", "cross")} | {"*": "star", "+": "cross"}

# Name -> background, rows of slots, English and Chinese name.
SIGNS: dict[str, tuple[str, str, str, str]] = {
    "traffic-light": ("grey", ".. rc .. / .. yc .. / .. gc ..", "a traffic light", "一个红绿灯"),
    "house": ("white", ".. rt .. / .. os .. / gs gs gs", "a little house", "一座小房子"),
    "fir": ("beige", ".. gt .. / .. gt .. / .. os ..", "a fir tree", "一棵杉树"),
    "flower": ("white", ".. kh .. / kh yc kh / .. gd ..", "a flower", "一朵花"),
    "butterfly": ("white", "ph .. ph / .. od .. / kh .. kh", "a butterfly", "一只蝴蝶"),
    "face": ("beige", "bc .. bc / .. ot .. / .. rh ..", "a face", "一张脸"),
    "die": ("white", "bc .. bc / .. bc .. / bc .. bc", "a die showing five", "一个五点的骰子"),
    "robot": ("grey", ".. cs .. / yr cs yr / bs .. bs", "a robot", "一个机器人"),
    "rocket": ("black", ".. rt y* / .. cs .. / y* ot ..", "a rocket among the stars", "星空中的火箭"),
    "night": ("black", "y* .. yc / .. .. .. / .. y* y*", "a starry night", "一个星夜"),
    "ice-cream": ("beige", ".. kc .. / .. yc .. / .. od ..", "an ice cream", "一个冰淇淋"),
    "castle": ("white", "rt .. rt / ps .. ps / ps ps ps", "a castle", "一座城堡"),
}
# Name -> what is edited, its new layout, the instruction.
EDITS: dict[str, tuple[str, str, str]] = {
    "house-loved": ("house", ".. rt .. / rh os .. / gs gs gs", "Put a heart beside the little house."),
    "light-turned": ("traffic-light", ".. .. .. / rc yc gc / .. .. ..", "Lay the traffic light on its side."),
    "face-winking": ("face", "b+ .. bc / .. ot .. / .. rh ..", "Make the face wink."),
    "die-three": ("die", "bc .. .. / .. bc .. / .. .. bc", "让骰子变成三点"),
    "fir-starred": ("fir", "y* gt y* / .. gt .. / .. os ..", "在杉树旁边挂上星星"),
    "castle-repainted": ("castle", "rt .. rt / bs .. bs / bs bs bs", "把城堡漆成蓝色"),
}
QUESTIONS: list[tuple[str, str, str]] = [
    ("traffic-light", "What is this thing?", "A traffic light."),
    ("house", "What is this thing?", "A little house."),
    ("fir", "What is this thing?", "A fir tree."),
    ("face", "What is this thing?", "A face."),
    ("robot", "What is this thing?", "A robot."),
    ("castle", "What is this thing?", "A castle."),
    ("flower", "这是什么东西？", "一朵花。"),
    ("butterfly", "这是什么东西？", "一只蝴蝶。"),
    ("die", "这是什么东西？", "一个骰子。"),
    ("rocket", "这是什么东西？", "一枚火箭。"),
    ("night", "这是什么东西？", "一个星夜。"),
    ("ice-cream", "这是什么东西？", "一个冰淇淋。"),
]


def lay(background: str, layout: str) -> Image.Image:
    """The picture of a layout."""
    objects = tuple(
        SceneObject(row, col, SHAPE_LETTERS[word[1]], COLOUR_LETTERS[word[0]])
        for row, line in enumerate(layout.split(" / "))
        for col, word in enumerate(line.split())
        if word != ".."
    )
    return render(Scene(EDGE, EDGE, background, objects)).quantize(64, dither=Image.Dither.NONE)


def main(folder: Path = FOLDER) -> None:
    """Lays and writes everything."""
    pictures = {name: lay(background, layout) for name, (background, layout, _, _) in SIGNS.items()}
    captions = [(name, caption) for name, (_, _, *both) in SIGNS.items() for caption in both]
    edited = {
        name: (sign, lay(SIGNS[sign][0], layout), instruction) for name, (sign, layout, instruction) in EDITS.items()
    }
    write_rows(folder, pictures, captions, edited, QUESTIONS)


if __name__ == "__main__":
    main()
