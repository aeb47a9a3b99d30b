"""The words of the scenes in English and Chinese. The first of each is what answers use, the others are synonyms."""

from __future__ import annotations

LANGUAGES = ("en", "zh")

SHAPE_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "circle": ("circle", "disc"),
        "square": ("square",),
        "triangle": ("triangle",),
        "star": ("star",),
        "heart": ("heart",),
        "diamond": ("diamond", "rhombus"),
        "ring": ("ring", "donut"),
        "cross": ("cross", "plus sign"),
    },
    "zh": {
        "circle": ("圆形", "圆"),
        "square": ("正方形", "方块"),
        "triangle": ("三角形", "三角"),
        "star": ("星星", "五角星"),
        "heart": ("心形", "爱心"),
        "diamond": ("菱形",),
        "ring": ("圆环",),
        "cross": ("十字", "十字形"),
    },
}
COLOUR_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "red": ("red",),
        "green": ("green",),
        "blue": ("blue",),
        "yellow": ("yellow",),
        "orange": ("orange",),
        "purple": ("purple", "violet"),
        "pink": ("pink",),
        "cyan": ("cyan", "turquoise"),
        "white": ("white",),
        "black": ("black",),
        "grey": ("grey", "gray"),
        "beige": ("beige",),
    },
    "zh": {
        "red": ("红色",),
        "green": ("绿色",),
        "blue": ("蓝色",),
        "yellow": ("黄色",),
        "orange": ("橙色", "橘色"),
        "purple": ("紫色",),
        "pink": ("粉色", "粉红色"),
        "cyan": ("青色",),
        "white": ("白色",),
        "black": ("黑色",),
        "grey": ("灰色",),
        "beige": ("米色",),
    },
}
# understood in answers, never written
ACCEPTED_SHAPES: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {"circle": ("disk", "dot"), "ring": ("doughnut",), "cross": ("plus",)},
    "zh": {"circle": ("圆圈",), "square": ("方形",), "heart": ("心",), "ring": ("环形", "环"), "star": ("星形", "星")},
}
ACCEPTED_COLOURS: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {"beige": ("tan", "cream"), "cyan": ("aqua",)},
    "zh": {
        "red": ("红",), "green": ("绿",), "blue": ("蓝",), "yellow": ("黄",), "orange": ("橙", "橘"), "purple": ("紫",),
        "pink": ("粉", "粉红"), "cyan": ("青",), "white": ("白",), "black": ("黑",), "grey": ("灰",), "beige": ("米黄色",),
    },
}  # fmt: skip

NUMBER_WORDS = {"en": ("zero", "one", "two", "three", "four"), "zh": ("零", "一", "两", "三", "四")}

# where something is: as an answer, and as a phrase
PLACE_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "top_left": ("top left", "in the top left corner", "at the top left"),
        "top_middle": ("top middle", "at the top in the middle", "at the top middle"),
        "top_right": ("top right", "in the top right corner", "at the top right"),
        "middle_left": ("middle left", "on the left in the middle", "at the middle left"),
        "centre": ("centre", "in the centre", "in the middle"),
        "middle_right": ("middle right", "on the right in the middle", "at the middle right"),
        "bottom_left": ("bottom left", "in the bottom left corner", "at the bottom left"),
        "bottom_middle": ("bottom middle", "at the bottom in the middle", "at the bottom middle"),
        "bottom_right": ("bottom right", "in the bottom right corner", "at the bottom right"),
        "left": ("left", "on the left", "on the left side"),
        "right": ("right", "on the right", "on the right side"),
        "top": ("top", "at the top"),
        "bottom": ("bottom", "at the bottom"),
    },
    "zh": {
        "top_left": ("左上角",),
        "top_middle": ("上方中间", "顶部中间"),
        "top_right": ("右上角",),
        "middle_left": ("左侧中间", "左边中间"),
        "centre": ("正中间", "中间"),
        "middle_right": ("右侧中间", "右边中间"),
        "bottom_left": ("左下角",),
        "bottom_middle": ("下方中间", "底部中间"),
        "bottom_right": ("右下角",),
        "left": ("左边", "左侧"),
        "right": ("右边", "右侧"),
        "top": ("上方", "顶部"),
        "bottom": ("下方", "底部"),
    },
}
DIRECTION_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "left_of": ("to the left of", "left of", "on the left of"),
        "right_of": ("to the right of", "right of", "on the right of"),
        "above": ("above", "over", "on top of"),
        "below": ("below", "under", "beneath"),
    },
    "zh": {
        "left_of": ("左边", "左侧"),
        "right_of": ("右边", "右侧"),
        "above": ("上方", "上面"),
        "below": ("下方", "下面"),
    },
}
# `exists` answers "is there ...?", which Chinese does with the verb of the question
YES_NO_WORDS: dict[str, dict[str, dict[str, str]]] = {
    "en": {"yes_no": {"yes": "yes", "no": "no"}, "exists": {"yes": "yes", "no": "no"}},
    "zh": {"yes_no": {"yes": "是", "no": "不是"}, "exists": {"yes": "有", "no": "没有"}},
}
